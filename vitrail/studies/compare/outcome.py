"""What a duel found: each contestant's scores, each pair's difference, and the sentences that may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, SettingError
from vitrail.data.labels import shorten
from vitrail.metrics.intervals import of_groups
from vitrail.metrics.paired_difference import (
    CONFIDENCE,
    FEW_RUNS,
    Difference,
    Verdict,
    holm,
    over_folds,
    over_seeds,
    verdict,
)
from vitrail.tasks.result import Evaluation, kept_by

Array = NDArray[np.float64]

RIGHT = "right"
"""What an evaluation calls whether an image was answered correctly."""


@dataclass(frozen=True)
class SharedImages:
    """The images of a duel: ids, the classes of each, its group, and the round that tested it (-1: every round)."""

    ids: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    folds: NDArray[np.int64]
    trained: int

    @property
    def units(self) -> NDArray[np.int64]:
        """The groups as numbers (n,)."""
        numbers: NDArray[np.int64] = np.unique(self.groups, return_inverse=True)[1]
        return numbers

    @property
    def constant(self) -> float:
        """The share of images that a network gets right which always answers the most frequent class."""
        names, counts = np.unique(["|".join(sorted(one)) for one in self.classes], return_counts=True)
        return float(counts.max() / counts.sum()) if len(names) else 0.0


@dataclass(frozen=True)
class Side:
    """What one contestant reached: its score of each image, (runs, n); of folds there is one run of all."""

    name: str
    scores: Array | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    crashed: str = ""

    def mean(self, tested: SharedImages) -> float:
        """Return the mean score; one that crashed counts as a network that always gives the most frequent answer."""
        return tested.constant if self.scores is None else float(self.scores.mean())


class Score(NamedTuple):
    """The number of each image that is compared, (n,), higher always better, and what it is called."""

    name: str
    values: Array


def score_of(evaluation: Evaluation) -> Score:
    """Return whether each image is answered correctly, else the task's main number of each image.

    Raises:
        SettingError: the task has no such number; then two of its models cannot be compared image by image.
    """
    numbers = evaluation.per_image()
    if RIGHT in numbers:
        return Score("accuracy", np.asarray(numbers[RIGHT], dtype=np.float64))
    kept = kept_by(evaluation)
    if kept.name not in numbers:
        raise SettingError(
            f"Models of this task cannot be compared image by image: its score is {kept.name}, and of an image it has "
            f"{', '.join(numbers)} alone."
        )
    return Score(kept.name, kept.sign * np.asarray(numbers[kept.name], dtype=np.float64))


def matched(ids: Sequence[str], answers: Mapping[str, float], name: str) -> Array:
    """Return the scores of these images in their order; DataError names those that `name` was not tested on."""
    missing = [one for one in ids if one not in answers]
    if missing:
        raise DataError(
            f"{name} was not scored on {len(missing):,} of {len(ids):,} images: {shorten(missing)}. "
            "Score all on the same images."
        )
    return np.array([answers[one] for one in ids], dtype=np.float64)


@dataclass(frozen=True)
class Pair:
    """Two contestants, the difference of their scores, and what may be said of it."""

    first: str
    second: str
    difference: Difference | None
    verdict: Verdict | None
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    crashed: tuple[str, ...] = ()  # those of the two that did

    def sentence(self, unit: str = "points") -> str:
        """Return the verdict in one of its forms."""
        if self.verdict is None:
            if len(self.crashed) == 2:
                return f"Neither {self.first} nor {self.second} could be trained."
            other = self.first if self.second in self.crashed else self.second
            return f"{other} is better than {self.crashed[0]}, which crashed."
        return said(self.verdict, self.first, self.second, unit)


def said(found: Verdict, first: str, second: str, unit: str = "points") -> str:
    """Return a verdict in words: better, no difference that matters, or can't tell."""
    region = f"{100 * found.region:g} {unit}" if found.region != 0.01 else f"1 {unit.removesuffix('s')}"
    if found.kind == "better":
        one, other = (first, second) if found.difference > 0 else (second, first)
        low, high = sorted((abs(found.low), abs(found.high)))
        size = f"{100 * abs(found.difference):.1f} {unit} ({100 * low:.1f} to {100 * high:.1f})"
        more = (
            f", by more than the {region} that matter" if found.passes else f"; perhaps by less than {region}"
        )
        return f"{one} is better than {other} by {size}{more}."
    size = f"{100 * found.difference:+.1f} {unit} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    if found.kind == "same":
        return f"No difference that matters between {first} and {second}: {size}, inside ± {region}."
    way = (
        f"About {_round(found.more):,} more test images would, if the difference stays as it is."
        if found.more is not None
        else "More images would not: trainings differ too much from one another; more rounds would."
    )
    if found.more is not None and 1 < found.runs < FEW_RUNS:
        way += " More rounds would narrow the interval too: give it more time."
    return f"Can't tell whether {first} or {second} is better: {size}. {way}"


def _round(number: int) -> int:
    """Return a number in two digits: it is a guess."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def pairs(sides: Sequence[Side], tested: SharedImages, region: float) -> list[Pair]:
    """Compare every two contestants, each difference at the confidence that Holm's correction asks for."""
    couples = list(combinations(sides, 2))
    measured = [_difference(one, other, tested) for one, other in couples]
    levels = iter(holm([found.p for found in measured if found]))
    made = []
    for (one, other), found in zip(couples, measured, strict=True):
        if found is None:
            crashed = tuple(side.name for side in (one, other) if side.crashed)
            made.append(Pair(one.name, other.name, None, None, crashed=crashed))
            continue
        level = next(levels)
        made.append(
            Pair(one.name, other.name, found, verdict(found, region, level), *_only(one, other, tested.ids))
        )
    return made


def _difference(one: Side, other: Side, tested: SharedImages) -> Difference | None:
    if one.scores is None or other.scores is None:
        return None
    differences = one.scores - other.scores
    if (tested.folds < 0).all():
        return over_seeds(differences, tested.units)
    return over_folds(differences[0], tested.folds, tested.units, tested.trained)


def _only(one: Side, other: Side, ids: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the images that most runs of only one of two get right, the clearest first."""
    assert one.scores is not None
    assert other.scores is not None
    apart = one.scores.mean(0) - other.scores.mean(0)
    mixed = np.random.default_rng(0).permutation(len(ids))  # not one class after another
    order = mixed[np.argsort(-np.abs(apart[mixed]), kind="stable")]
    first = tuple(ids[i] for i in order if apart[i] > 0.5)
    return first, tuple(ids[i] for i in order if apart[i] < -0.5)


def scored(side: Side, tested: SharedImages) -> dict[str, Any]:
    """Return a contestant's score with its interval, over images and runs like those of the differences."""
    if side.scores is None:
        return {"value": round(tested.constant, 6), "low": None, "high": None}
    if (tested.folds < 0).all():
        found = over_seeds(side.scores, tested.units)
    else:
        found = over_folds(side.scores[0], tested.folds, tested.units, tested.trained)
    low, high = found.interval(CONFIDENCE)
    return {"value": round(found.value, 6), "low": round(max(0.0, low), 6), "high": round(min(1.0, high), 6)}


def by_class(side: Side, tested: SharedImages) -> dict[str, Any]:
    """Return the score of each class with its interval (images of a group count once)."""
    if side.scores is None:
        return {}
    mean = side.scores.mean(0)
    found = {}
    for name in sorted({one for classes in tested.classes for one in classes}):
        at = [i for i, classes in enumerate(tested.classes) if name in classes]
        interval = of_groups([float(mean[i]) for i in at], [tested.groups[i] for i in at])
        found[name] = {**interval.to_dict(), "images": len(at)}
    return found
