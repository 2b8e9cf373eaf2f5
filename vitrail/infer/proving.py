"""What is seen of a plan before it is used: how quick it is, and how it agrees with float32 on pictures."""

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
from vitrail.data.sample import images_only
from vitrail.infer.held_back import Pixels
from vitrail.infer.plans import Plan
from vitrail.infer.predictor import Predictor, Request
from vitrail.layers.elastic import Point
from vitrail.layers.head import Output
from vitrail.runs.proof import picture

Twin = TypeVar("Twin", bound=nn.Module)

LOOKED_AT = 240
"""Pictures that are decoded for a proof, at most."""

EVERY = 6
"""Of them, every sixth is what int8 learns its scales from; plans are proven on the others."""

SAME_TOP = 0.995
"""The least share of top answers that must be float32's."""

DRIFT = 0.05
"""How far a number of a fingerprint, a probability, may lie from float32's; how far it did is said with the answers."""

HELD = 1 << 28
"""Bytes of float32's outputs that are held for the next plan."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a plan: pictures a second, seconds to set it up, and how it agreed with float32.

    `failed` says why a plan could not be tried at all, `passing` that the reason may be gone tomorrow; `answer` holds
    its fingerprint of the model's proof picture and `scales` the digest of int8's, by which it is known again.
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

    @property
    def faithful(self) -> bool:
        """Whether it may be used."""
        return not self.failed and self.same_top >= SAME_TOP and self.drift <= DRIFT


class Shown:
    """Pictures to learn from and to prove plans on, `at_once` together: decoded when first asked for, and once.

    Raises, when asked:
        DataError: none can be read.
    """

    def __init__(
        self, predictor: Predictor, point: Point, proof: Callable[[], Iterable[Pixels]], at_once: int
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
        """What plans are proven on: nothing was learnt from it, but where there is one picture only."""
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
    def plain(self) -> Seen:
        """What was seen of float32 itself."""
        count = sum(len(next(iter(output.values()))) for output in self.wanted())
        return Seen(speed(self.batches, self.seconds), 0.0, 1.0, 0.0, count)


def measured(plan: Plan, make: Callable[[], Twin], shown: Shown) -> tuple[Seen, Twin | None]:
    """Run the proof's pictures through what `make` returns, beside float32; returns that too, where it may be used."""
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
        same, drift, times = _compared(shown, request)
        known = known_by(predictor, request)
    except Exception as error:  # an engine may refuse a network in any way; float32 still answers
        why = str(error) if isinstance(error, VitrailError) else type(error).__name__
        passing = isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)
        return Seen(0.0, 0.0, 0.0, 1.0, count, why, passing), None
    seen = Seen(speed(shown.batches, times), setup, same / count, drift, count, answer=tuple(known))
    return seen, quick if seen.faithful else None


def _compared(shown: Shown, request: Request) -> tuple[int, float, list[float]]:
    """Return how many answers are float32's, how far a number of a fingerprint is off, and each batch's seconds."""
    task = shown.predictor.task
    same, drift, times = 0, 0.0, []
    for batch, wanted in zip(shown.batches, shown.wanted(), strict=True):
        output, took = timed(shown.predictor, request, batch)
        times.append(took)
        same += int(task.agree(wanted, output).sum())
        apart = float((task.fingerprint(wanted) - task.fingerprint(output)).abs().max())
        drift = max(drift, apart if apart == apart else float("inf"))  # a NaN must not pass for no drift
    return same, drift, times


def known_by(predictor: Predictor, request: Request) -> list[float]:
    """Return the fingerprint of what answers a request, of the model's proof picture."""
    ready = predictor.ready(picture(predictor.preprocess.channels), request.point)
    found: list[float] = predictor.task.fingerprint(predictor.outputs([ready], request)).flatten().tolist()
    return found


def timed(predictor: Predictor, request: Request, batch: Tensor) -> tuple[Output, float]:
    """Return the outputs for prepared images, in float32 on the CPU, and the seconds they took."""
    began = time.perf_counter()
    output = predictor.run(images_only(batch), request)
    return output, time.perf_counter() - began


def speed(batches: Sequence[Tensor], times: Sequence[float]) -> float:
    """Return pictures a second, the median of the batches."""
    each = [len(batch) / seconds for batch, seconds in zip(batches, times, strict=True)]
    return median(each)
