"""Measure a backend before it is used: its speed, and its agreement with float32 on images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor, nn

from vitrail.core.errors import VitrailError
from vitrail.data.batch import images_only
from vitrail.infer.backends import Backend
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.proof_images import Pixels
from vitrail.layers.elastic import OperatingPoint
from vitrail.layers.heads import Output
from vitrail.runs.proof import TOLERANCE, drift, proof_image_for

Twin = TypeVar("Twin", bound=nn.Module)

PROOF_IMAGES = 240
"""Largest number of images that are decoded for a check."""

EVERY = 6
"""Every sixth image is used for int8 calibration; backends are compared with float32 on the others."""

SAME_TOP = 0.995
"""Smallest allowed share of top predictions that are the same as in float32."""

DRIFT = 0.05
"""Largest allowed difference of a probability (of a fingerprint) from float32; the measured one is reported to the
user."""

HELD = 1 << 28
"""Largest size, in bytes, of float32 outputs that are kept for the next backend."""


SPREAD = 0.5
"""Largest allowed distance of outputs from float32, relative to the spread of the outputs over images. Outputs that
ignore the image are at distance 1 or more, even if all probabilities are similar (bf16 0.01 to 0.05, int8 up to
0.2)."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """Measurement of a backend: images/s, setup time in seconds, and agreement with float32.

    `off` is the distance of outputs from float32, relative to the spread over images; 0 for one image. `failed` is the
    reason if the backend could not run; `passing` means that this reason may be temporary. `answer` is its fingerprint
    of the model's proof image and `scales` the digest of the int8 scales: they identify the backend in the cache.
    `wanted` is the number of images that the check asked for; there may be fewer. `scored` means that the score of the
    operating point is measured with this backend, so that what rounding costs is in the score: merging chooses between
    tokens that are nearly alike, and rounding chooses others. Then only the distance `off` counts.
    """

    speed: float
    setup: float
    same_top: float
    drift: float
    pictures: int
    failed: str = ""
    passing: bool = False
    answer: tuple[float, ...] = ()
    scales: str = ""
    off: float = 0.0
    wanted: int = 0
    scored: bool = False

    @property
    def faithful(self) -> bool:
        """Whether the backend may be used."""
        return not self.hopeless and (self.scored or self.same_top >= SAME_TOP)

    @property
    def hopeless(self) -> bool:
        """Whether more images cannot make it faithful."""
        return bool(self.failed) or (self.drift > DRIFT and not self.scored) or self.off > SPREAD


class Shown:
    """Images for int8 calibration and for the check, in batches of `at_once`. They are decoded once, on first use.

    Raises, on first use:
        DataError: no image can be read.
    """

    def __init__(
        self, predictor: Predictor, point: OperatingPoint, proof: Callable[[], Iterable[Pixels]], at_once: int
    ) -> None:
        self.predictor, self.point, self.at_once, self._proof = predictor, point, at_once, proof
        self._held: list[Output] = []
        self.seconds: list[float] = []

    @cached_property
    def _parted(self) -> tuple[Tensor, list[Tensor]]:
        pictures = [self.predictor.ready(shot, self.point).pixels for shot in self._proof()]
        others = [picture for i, picture in enumerate(pictures) if i % EVERY] or pictures
        batches = [torch.stack(others[i : i + self.at_once]) for i in range(0, len(others), self.at_once)]
        return torch.stack(pictures[::EVERY]), batches

    def learnt(self) -> Tensor:
        """Return prepared images for int8 calibration: (n, channels, height, width)."""
        return self._parted[0]

    @property
    def batches(self) -> list[Tensor]:
        """Batches for the check. They are disjoint from the calibration images, unless there is only one image."""
        return self._parted[1]

    def wanted(self) -> Iterator[Output]:
        """Yield the float32 outputs batch by batch; small ones are kept in memory, large ones are recomputed."""
        if len(self._held) == len(self.batches):
            yield from self._held
            return
        self._held, self.seconds, held = [], [], 0
        for batch in self.batches:
            output, took = timed(self.predictor, Request(self.point), batch)
            self.seconds.append(took)
            held += sum(tensor.nbytes for tensor in output.values())
            self._held = [*self._held, output] if held <= HELD else []
            yield output

    @property
    def plain(self) -> BackendResult:
        """Measurement of float32 itself."""
        count = sum(len(next(iter(output.values()))) for output in self.wanted())
        return BackendResult(speed(self.batches, self.seconds), 0.0, 1.0, 0.0, count)


def check_backend(
    plan: Backend, make: Callable[[], Twin], shown: Shown, scored: bool = False
) -> tuple[BackendResult, Twin | None]:
    """Compare the network that `make` returns with float32; also return this network if it may be used."""
    predictor, point = shown.predictor, shown.point
    count = sum(map(len, shown.batches))
    try:
        if plan.engine == "openvino":
            make()  # not timed: the next job reads the translation from the cache
        began = time.perf_counter()
        network = make()
        request = Request(point, network)
        timed(predictor, request, shown.batches[0])  # compiles
        setup = time.perf_counter() - began
        found = _Compared(shown, request)
        known = proof_answer(predictor, request)
    except Exception as error:  # an engine may fail in any way; float32 still works
        return failure(error, count), None
    result = BackendResult(
        speed(shown.batches, found.seconds),
        setup,
        found.same / count,
        found.drift,
        count,
        answer=tuple(known),
        off=found.off(),
        scored=scored,
    )
    return result, network if result.faithful else None


class _Compared:
    """Comparison of a backend with float32, accumulated batch by batch."""

    def __init__(self, shown: Shown, request: Request) -> None:
        task = shown.predictor.task
        self.same, self.drift = 0, 0.0
        self.seconds: list[float] = []
        self._away: dict[str, Away] = {}
        for batch, wanted in zip(shown.batches, shown.wanted(), strict=True):
            output, took = timed(shown.predictor, request, batch)
            self.seconds.append(took)
            self.same += int(task.agree(wanted, output).sum())
            apart = float((task.fingerprint(wanted) - task.fingerprint(output)).abs().max())
            self.drift = max(self.drift, apart if apart == apart else float("inf"))  # a NaN must not pass
            for name in wanted:
                self._away.setdefault(name, Away()).add(wanted[name], output[name])

    def off(self) -> float:
        """Return the largest distance over all outputs."""
        return max(one.distance() for one in self._away.values())


class Away:
    """Distance of outputs from the reference, relative to the spread of the reference over images."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares, self.errors = 0, torch.zeros(()), 0.0, 0.0

    def add(self, wanted: Tensor, found: Tensor) -> None:
        """Add outputs of a batch: (b, …) each."""
        exact = wanted.double()
        self.count += len(exact)
        self.sums = self.sums + exact.sum(0)
        self.squares += float(exact.square().sum())
        self.errors += float((found.double() - exact).square().sum())

    def distance(self) -> float:
        """Return the distance; 0 if the reference is the same for all images, so that there is no scale."""
        spread = self.squares - float(self.sums.square().sum()) / max(1, self.count)
        if self.count < 2 or spread <= 1e-12 * self.squares:
            return 0.0
        return float((self.errors / spread) ** 0.5)


def proof_answer(predictor: Predictor, request: Request) -> list[float]:
    """Return the fingerprint of what answers a request, of the model's proof image."""
    ready = predictor.ready(proof_image_for(predictor.preprocess), request.point)
    found: list[float] = predictor.task.fingerprint(predictor.outputs([ready], request)).flatten().tolist()
    return found


def failure(error: Exception, pictures: int = 0) -> BackendResult:
    """Return the result of a backend that cannot run the network."""
    why = str(error) if isinstance(error, VitrailError) else type(error).__name__
    passing = isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)
    return BackendResult(
        0.0, 0.0, 0.0, 1.0, pictures, f"cannot run this network: {why}", passing, wanted=PROOF_IMAGES
    )


def compare_proof(predictor: Predictor, request: Request, speed: float) -> BackendResult:
    """Return the result of a backend that computes in float32 too: its answer to the model's proof image is the same.

    `speed` is its images/s, timed or expected.
    """
    answer = proof_answer(predictor, request)
    apart = drift(proof_answer(predictor, Request(request.point)), answer)
    failed = "" if apart <= TOLERANCE else f"it answers otherwise to the proof image, by {apart:.2g}"
    return BackendResult(speed, 0.0, 1.0, apart, 1, failed, answer=tuple(answer), wanted=PROOF_IMAGES)


def timed(predictor: Predictor, request: Request, batch: Tensor) -> tuple[Output, float]:
    """Return the outputs for prepared images, in float32 on the CPU, and the seconds they took."""
    began = time.perf_counter()
    output = predictor.run(images_only(batch), request)
    return output, time.perf_counter() - began


def speed(batches: Sequence[Tensor], times: Sequence[float]) -> float:
    """Return images a second, the median of the batches."""
    each = [len(batch) / seconds for batch, seconds in zip(batches, times, strict=True)]
    return median(each)
