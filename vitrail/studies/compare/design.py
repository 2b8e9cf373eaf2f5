"""The rounds of a duel: folds, or seeds on a split that was given, and the time of each training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitrail.core.errors import DataError, UsageError
from vitrail.core.text import clock
from vitrail.data.labels import count
from vitrail.data.manifest import KEPT, TEST, TRAIN, VAL, Manifest, Row, group_key
from vitrail.data.prepare import Prepared, apart
from vitrail.data.rasters.blocks import restored
from vitrail.data.split import assign
from vitrail.data.targets import Targets

SEARCH = 0.1
"""The share of a contestant's time in which its learning rate is chosen."""

FACTORS = (1 / 3, 1.0, 3.0)
"""What the recipe's learning rate is multiplied by in the search."""

HALVES = 3
"""Rounds that are also trained on half of the images, to see who needs more of them."""

VALIDATION = 0.1
"""Of the images that are not tested on in a round, those that choose the best epoch."""

EPOCHS = 5
"""Epochs of a training below which fewer rounds are made in its place, as long as there are more than the fewest."""


class Rounds(NamedTuple):
    """The manifests of the rounds; each fold is tested once, or each seed on the given test images."""

    folds: bool
    manifests: tuple[Manifest, ...]

    @property
    def trained(self) -> int:
        """Images that a round trains on, and validates by."""
        return min(len(one.rows(TRAIN)) + len(one.rows(VAL)) for one in self.manifests)


def choices(prepared: Prepared, most: int | None = None) -> tuple[int, ...]:
    """Return the numbers of rounds that may be made, the best first; `most` is what the user asks for.

    Raises:
        DataError: too few images for three folds.
        UsageError: fewer than two rounds.
    """
    if most is not None and most < 2:
        raise UsageError(
            f"--rounds {most} leaves nothing to tell trainings apart by. Give 3 or more, 10 if there is time."
        )
    usual = (5, 4, 3) if is_given(prepared) else (10, 5, 3)
    wanted = usual if most is None else (most, *(number for number in usual if number < most))
    if is_given(prepared):
        return wanted
    units = len({group_key(row) for row in prepared.manifest.rows()})
    possible = [number for number in wanted if 2 * number <= units]
    if most is not None and most not in possible:
        raise UsageError(
            f"--rounds {most} leaves fewer than two images (groups count once) to a fold. Give fewer."
        )
    if not possible:
        raise DataError(
            f"{count(units, 'image')} (groups count once) cannot be split into 3 folds. Add images."
        )
    return tuple(possible)


def is_given(prepared: Prepared) -> bool:
    """Tell whether the source states which images test."""
    return bool({entry.split for entry in prepared.layout.found} & {TEST, VAL})


def rounds(prepared: Prepared, number: int, seed: int) -> Rounds:
    """Draw the rounds: stratified folds in which groups stay together, or the given split again and again.

    Each round draws its validation images anew.

    Raises:
        DataError: the test images are all of one class.
    """
    manifest, targets = prepared.manifest, prepared.targets
    if is_given(prepared):
        _refuse_single_class(manifest.rows(TEST), targets)
        return Rounds(False, (manifest,) * number)
    every = restored(manifest.rows(state=None))
    rows = [row for row in every if row.state == KEPT]
    _refuse_single_class(rows, targets)
    held = _folds(rows, targets, number, seed)
    others = [row for row in every if row.state != KEPT]
    made = []
    for fold in range(number):
        marked = [row._replace(split=TEST if held[i] == fold else "") for i, row in enumerate(rows)]
        drawn = assign(manifest.replace([*marked, *others]), targets.strata, seed=seed + fold, val=VALIDATION)
        made.append(apart(prepared.layout, drawn.manifest, targets)[0])
    return Rounds(True, tuple(made))


def _folds(rows: Sequence[Row], targets: Targets[object], number: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    names = ["|".join(sorted(map(str, targets.strata(row)))) for row in rows]
    groups = [group_key(row) for row in rows]
    held = np.zeros(len(rows), dtype=np.int64)
    with warnings.catch_warnings():
        # A rare class is missing in some folds: no reason to refuse the others.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        try:
            parts = list(splitter.split(names, names, groups))
        except ValueError:  # no class has as many images as there are folds
            parts = list(splitter.split(names, [""] * len(names), groups))
    for fold, (_, test) in enumerate(parts):
        held[test] = fold
    return held


def _refuse_single_class(rows: Sequence[Row], targets: Targets[object]) -> None:
    classes = {one for row in rows for one in targets.strata(row)}
    if len(classes) == 1:
        raise DataError(
            f"All {count(len(rows), 'test image')} are of one class, {next(iter(classes))!r}: a network that always "
            "says so would win. Add test images of the other classes, or let the split be drawn: --splits none"
        )


def halved(manifest: Manifest, targets: Targets[object], seed: int) -> Manifest:
    """Return a manifest with half of its training images; groups stay together, the others have no split."""
    rows = manifest.rows(TRAIN)
    kept = assign(
        manifest.replace([row._replace(split="") for row in rows]),
        targets.strata,
        seed=seed,
        val=0.5,
        test=0.0,
    )
    left = {row.id for row in kept.manifest.rows(VAL)}
    every = [row for row in manifest.rows(state=None) if row.id not in left]
    return manifest.replace(every)


@dataclass(frozen=True)
class Cost:
    """What a training of one contestant costs, in seconds: what is not training, and one epoch."""

    overhead: float
    epoch: float
    images: int = 0


@dataclass(frozen=True)
class Times:
    """How the whole time is shared out: rounds, rounds on half of the images, and seconds of each training."""

    rounds: int
    halves: int
    search: float  # of one of three trainings; 0: the recipe's learning rate is kept
    training: float
    said: str = ""

    def of(self, kind: str, overhead: float) -> float:
        """Return the seconds of a training's steps: `half` of the images get half of the time."""
        steps = self.training - overhead
        return steps / 2 if kind == "half" else steps


def share_out(seconds: float, costs: Sequence[Cost], possible: Sequence[int], spent: float = 0.0) -> Times:
    """Share the time out evenly: as many rounds as leave each training enough epochs, at least one.

    `seconds` are those of the whole comparison, of which measuring has `spent` some; `possible` are the numbers of
    rounds, the best first.

    Raises:
        UsageError: not even the fewest rounds of one epoch fit; it says what they would take.
    """
    each = (seconds - spent) / len(costs)
    for number in possible:
        for halves in dict.fromkeys((min(HALVES, number), 0)):
            times = _times(each, number, halves, costs)
            least = EPOCHS if (number, halves) != (possible[-1], 0) else 1
            if all(times.training - cost.overhead >= least * cost.epoch for cost in costs):
                return _told(times, possible[0])
    needed = max(cost.overhead + cost.epoch for cost in costs) * possible[-1] * len(costs) + spent
    slowest = max(costs, key=lambda cost: cost.overhead + cost.epoch)
    raise UsageError(
        f"{clock(seconds)} are too short: {len(costs)} networks of {possible[-1]} trainings each leave less than one "
        f"epoch. For the slowest, one takes {clock(slowest.epoch)}, starting and scoring {clock(slowest.overhead)}. "
        f"Give --time {-(-int(1.1 * needed) // 60)}m or more."
    )


def _times(each: float, number: int, halves: int, costs: Sequence[Cost]) -> Times:
    search = SEARCH * each / len(FACTORS)
    if any(search - cost.overhead < 0.5 * cost.epoch for cost in costs):
        search = 0.0
    overhead = max(cost.overhead for cost in costs)
    left = each - len(FACTORS) * search - halves * overhead / 2
    return Times(number, halves, search, left / (number + halves / 2))


def _told(times: Times, best: int) -> Times:
    said = []
    if times.rounds < best:
        said.append(f"{times.rounds} rounds in place of {best}, as the time asks for")
    if not times.halves:
        said.append("no trainings on half of the images, for want of time")
    if not times.search:
        said.append("the recipes' learning rates, for want of time to choose")
    return Times(times.rounds, times.halves, times.search, times.training, "; ".join(said))
