"""What is seen of a plan before it is used: how quick it is, and how it agrees with float32 on images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
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
from vitrail.runs.proof import proof_image_for

Twin = TypeVar("Twin", bound=nn.Module)

LOOKED_AT = 240
"""Images that are decoded for a proof, at most."""

EVERY = 6
"""Of them, every sixth is what int8 learns its scales from; plans are proven on the others."""

SAME_TOP = 0.995
"""The least share of top answers that must be float32's."""

DRIFT = 0.05
"""How far a number of a fingerprint, a probability, may lie from float32's; how far it did is said with the answers."""

HELD = 1 << 28
"""Bytes of float32's outputs that are held for the next plan."""


SPREAD = 0.5
"""How far outputs may lie from float32's, in parts of how far images differ: an answer to nothing in particular lies
1 or more away, however near to each other the probabilities are (bf16 0.01 to 0.05, int8 up to 0.2)."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """What was measured of a plan: images a second, seconds to set it up, and how it agreed with float32.

    `off` is the distance of outputs from float32's, in parts of how far the images' own differ; 0 for one image.
    `failed` says why a plan could not be tried at all, `passing` that the reason may be gone tomorrow; `answer` holds
    its fingerprint of the model's proof image and `scales` the digest of int8's, by which it is known again.
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

    @property
    def faithful(self) -> bool:
        """Whether it may be used."""
        near = self.drift <= DRIFT and self.off <= SPREAD
        return not self.failed and self.same_top >= SAME_TOP and near


class Shown:
    """Images to learn from and to prove plans on, `at_once` together: decoded when first asked for, and once.

    Raises, when asked:
        DataError: none can be read.
    """

    def __init__(
        self, predictor: Predictor, point: OperatingPoint, proof: Callable[[], Iterable[Pixels]], at_once: int
    ) -> None:
        self.predictor, self.point, self.at_once, self._proof = predictor, point, at_once, proof
        self._held: list[Output] = []
        self.seconds: list[float] = []

    @cached_property
    def _parted(self) -> tuple[Tensor, list[Tensor]]:
        pictures = [
            self.predictor.ready(shot, self.point).pixels for shot in islice(self._proof(), LOOKED_AT)
        ]
        others = [picture for i, picture in enumerate(pictures) if i % EVERY] or pictures
        batches = [torch.stack(others[i : i + self.at_once]) for i in range(0, len(others), self.at_once)]
        return torch.stack(pictures[::EVERY]), batches

    def learnt(self) -> Tensor:
        """Return what int8 learns from, prepared: (n, channels, height, width)."""
        return self._parted[0]

    @property
    def batches(self) -> list[Tensor]:
        """What plans are proven on: nothing was learned from it, but where there is one image only."""
        return self._parted[1]

    def wanted(self) -> Iterator[Output]:
        """Yield float32's outputs batch by batch; they are held while they are small, and else computed again."""
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
        """What was seen of float32 itself."""
        count = sum(len(next(iter(output.values()))) for output in self.wanted())
        return BackendResult(speed(self.batches, self.seconds), 0.0, 1.0, 0.0, count)


def measured(plan: Backend, make: Callable[[], Twin], shown: Shown) -> tuple[BackendResult, Twin | None]:
    """Run the proof's images through what `make` returns, beside float32; returns that too, where it may be used."""
    predictor, point = shown.predictor, shown.point
    count = sum(map(len, shown.batches))
    try:
        if plan.engine == "openvino":
            make()  # not timed: the next job will find it translated
        began = time.perf_counter()
        quick = make()
        request = Request(point, quick)
        timed(predictor, request, shown.batches[0])  # compiles
        setup = time.perf_counter() - began
        found = _Compared(shown, request)
        known = proof_answer(predictor, request)
    except Exception as error:  # an engine may refuse a network in any way; float32 still answers
        why = str(error) if isinstance(error, VitrailError) else type(error).__name__
        passing = isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)
        return BackendResult(0.0, 0.0, 0.0, 1.0, count, why, passing), None
    seen = BackendResult(
        speed(shown.batches, found.seconds),
        setup,
        found.same / count,
        found.drift,
        count,
        answer=tuple(known),
        off=found.off(),
    )
    return seen, quick if seen.faithful else None


class _Compared:
    """What another way says of the proof's images beside float32, gathered batch by batch."""

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
        """Return the largest distance of an output."""
        return max(one.distance() for one in self._away.values())


class Away:
    """How far outputs lie from those wanted, in parts of how far the wanted ones of images differ."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares, self.errors = 0, torch.zeros(()), 0.0, 0.0

    def add(self, wanted: Tensor, found: Tensor) -> None:
        """Take in outputs of some images: (b, …) each."""
        exact = wanted.double()
        self.count += len(exact)
        self.sums = self.sums + exact.sum(0)
        self.squares += float(exact.square().sum())
        self.errors += float((found.double() - exact).square().sum())

    def distance(self) -> float:
        """Return the distance; 0 where nothing differs, so that there is nothing to measure by."""
        spread = self.squares - float(self.sums.square().sum()) / max(1, self.count)
        if self.count < 2 or spread <= 1e-12 * self.squares:
            return 0.0
        return float((self.errors / spread) ** 0.5)


def proof_answer(predictor: Predictor, request: Request) -> list[float]:
    """Return the fingerprint of what answers a request, of the model's proof image."""
    ready = predictor.ready(proof_image_for(predictor.preprocess), request.point)
    found: list[float] = predictor.task.fingerprint(predictor.outputs([ready], request)).flatten().tolist()
    return found


def timed(predictor: Predictor, request: Request, batch: Tensor) -> tuple[Output, float]:
    """Return the outputs for prepared images, in float32 on the CPU, and the seconds they took."""
    began = time.perf_counter()
    output = predictor.run(images_only(batch), request)
    return output, time.perf_counter() - began


def speed(batches: Sequence[Tensor], times: Sequence[float]) -> float:
    """Return images a second, the median of the batches."""
    each = [len(batch) / seconds for batch, seconds in zip(batches, times, strict=True)]
    return median(each)
