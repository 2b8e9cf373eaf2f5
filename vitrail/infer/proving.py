"""What is seen of a plan before it is used: how quick it is, and how it agrees with float32 on pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor, nn

from vitrail.core.errors import VitrailError
from vitrail.infer.held_back import Pixels
from vitrail.infer.plans import Plan
from vitrail.infer.predictor import Predictor
from vitrail.runs.proof import picture_for
from vitrail.tasks.multilabel.task import MultiLabel

Twin = TypeVar("Twin", bound=nn.Module)

LOOKED_AT = 240
"""Pictures that are decoded for a proof, at most."""

EVERY = 6
"""Of them, every sixth is what int8 learns its scales from; plans are proven on the others."""

SAME_TOP = 0.995
"""The least share of top answers that must be float32's."""

DRIFT = 0.05
"""How far a probability may lie from float32's; how far it did lie is said with the answers."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a plan: pictures a second, seconds to set it up, and how it agreed with float32.

    `failed` says why a plan could not be tried at all, `passing` that the reason may be gone tomorrow; `answer` holds
    its probabilities for the model's proof picture and `scales` the digest of int8's, by which it is known again.
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

    def __init__(self, predictor: Predictor, proof: Callable[[], Iterable[Pixels]], at_once: int) -> None:
        self.predictor, self.at_once, self._proof = predictor, at_once, proof

    @cached_property
    def _parted(self) -> tuple[Tensor, list[Tensor]]:
        pictures = [self.predictor.ready(shot).pixels for shot in islice(self._proof(), LOOKED_AT)]
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

    @cached_property
    def wanted(self) -> tuple[Tensor, list[float]]:
        """Float32's output, (n, …), and its seconds for each batch."""
        return run(self.predictor, self.predictor.network, self.batches)

    @property
    def plain(self) -> Seen:
        """What was seen of float32 itself."""
        output, times = self.wanted
        return Seen(speed(self.batches, times), 0.0, 1.0, 0.0, len(output))


def measured(plan: Plan, make: Callable[[], Twin], shown: Shown) -> tuple[Seen, Twin | None]:
    """Run the proof's pictures through what `make` returns, beside float32; returns that too, where it may be used."""
    predictor, (wanted, _) = shown.predictor, shown.wanted
    try:
        if plan.engine == "openvino":
            make()  # not timed: the next job will find it translated
        began = time.perf_counter()
        quick = make()
        timed(predictor, quick, shown.batches[0])  # compiles
        setup = time.perf_counter() - began
        found, times = run(predictor, quick, shown.batches)
        known = known_by(predictor, quick)
    except Exception as error:  # an engine may refuse a network in any way; float32 still answers
        why = str(error) if isinstance(error, VitrailError) else type(error).__name__
        passing = isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)
        return Seen(0.0, 0.0, 0.0, 1.0, len(wanted), why, passing), None
    p, q = predictor.task.probabilities(wanted), predictor.task.probabilities(found)
    same, drift = float(same_answer(predictor, p, q).float().mean()), float((p - q).abs().max())
    seen = Seen(speed(shown.batches, times), setup, same, drift, len(wanted), answer=tuple(known))
    return seen, quick if seen.faithful else None


def known_by(predictor: Predictor, network: nn.Module) -> list[float]:
    """Return a network's probabilities for the model's proof picture."""
    pixels = predictor.ready(picture_for(predictor.preprocess)).pixels[None]
    found: list[float] = predictor.task.probabilities(timed(predictor, network, pixels)[0]).flatten().tolist()
    return found


def same_answer(predictor: Predictor, p: Tensor, q: Tensor) -> Tensor:  # (b, …), (b, …) -> bool
    """Tell which answers are the same: the likeliest class, or, where labels are yes or no, every one of them."""
    if isinstance(predictor.task, MultiLabel):
        least = torch.tensor(predictor.task.thresholds())
        return ((p >= least) == (q >= least)).all(-1)
    return p.argmax(-1) == q.argmax(-1)


def run(predictor: Predictor, network: nn.Module, batches: Sequence[Tensor]) -> tuple[Tensor, list[float]]:
    """Return a network's output for all batches, and the seconds of each."""
    each = [timed(predictor, network, batch) for batch in batches]
    return torch.cat([output for output, _ in each]), [seconds for _, seconds in each]


def timed(predictor: Predictor, network: nn.Module, batch: Tensor) -> tuple[Tensor, float]:
    """Return a network's output for a batch, in float32 on the CPU, and the seconds it took."""
    began = time.perf_counter()
    with torch.inference_mode():
        output = predictor.task.infer(network, batch.to(predictor.device)).float().cpu()
    return output, time.perf_counter() - began


def speed(batches: Sequence[Tensor], times: Sequence[float]) -> float:
    """Return pictures a second, the median of the batches."""
    each = [len(batch) / seconds for batch, seconds in zip(batches, times, strict=True)]
    return median(each)
