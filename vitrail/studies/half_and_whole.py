"""Would more images help a full training? One on half of the training images, one on all, and what two points say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.manifest import TRAIN, Manifest, group_key
from vitrail.data.prepare import Prepared
from vitrail.metrics.learning_curve import CONFIDENCE, Band
from vitrail.reports.evaluate_model import evaluate_run
from vitrail.runs.train_options import TrainOptions, seconds
from vitrail.studies.learning_curves import refuse_few, stratified
from vitrail.tasks.result import Number
from vitrail.training.adapted_weights import refuse_guess
from vitrail.training.fit import start, with_class_weights
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import plan

SHARES = (0.5, 1.0)


class Trained(NamedTuple):
    """A training: its images, its score on the test images, its run folder."""

    images: int
    score: Number
    run: str


@dataclass(frozen=True)
class HalfAndWhole:
    """Two trainings of a network that differ in nothing but the images; what a score is called."""

    model: str
    tune: str
    half: Trained
    whole: Trained
    score: str

    def gain(self) -> Band | None:
        """Return what the second half brought, with its 80 % interval; None where a score has none.

        Both scores are taken for independent, which they are not, being of the same images: the interval is wide.
        """
        sides = [_deviation(one.score) for one in (self.half, self.whole)]
        before, now = self.half.score.value, self.whole.score.value
        if sides[0] is None or sides[1] is None or before is None or now is None:
            return None
        sign = 1 if self.whole.score.better == "higher" else -1
        middle = sign * (now - before)
        reach = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * (sides[0] ** 2 + sides[1] ** 2) ** 0.5
        return Band(middle - reach, middle, middle + reach)

    def most(self) -> float | None:
        """Return what twice the images bring at most: what the last doubling brought at the upper end.

        Where errors follow a power law, each doubling brings less than the one before; two points cannot say how
        much less, so that the least is nothing. None where the score has no interval.
        """
        gain = self.gain()
        return None if gain is None else max(0.0, gain.high)


def half_and_whole(
    source: str, prepared: Prepared, options: TrainOptions, listeners: Sequence[Listener] = ()
) -> HalfAndWhole:
    """Train on half of the training images and on all; each has half of the time, or all the epochs.

    Raises:
        DataError: too few images.
    """
    refuse_few(prepared)
    refuse_guess(prepared, options)
    trained = [_trained(source, _share(prepared, share), options, listeners) for share in SHARES]
    (recipe, half, name), (_, whole, _) = trained
    return HalfAndWhole(recipe.model.name, recipe.training.tune, half, whole, name)


def time_of_each(time: str | None) -> str | None:
    """Return the time of each of the two trainings."""
    told = seconds(time)
    return None if told is None else f"{told / len(SHARES):g}s"


def _trained(
    source: str, prepared: Prepared, options: TrainOptions, listeners: Sequence[Listener]
) -> tuple[Any, Trained, str]:
    images = len(prepared.manifest.rows(TRAIN))
    note(listeners, [f"training on {images:,} images"])
    recipe = with_class_weights(plan(source, prepared, options).recipe, prepared.manifest)
    run = start(recipe, prepared, options.out, listeners)
    score = next(iter(evaluate_run(str(run.folder), options.device or "auto").result.numbers.items()))
    return recipe, Trained(images, score[1], str(run.folder)), score[1].name or score[0]


def _share(prepared: Prepared, share: float) -> Prepared:
    """Return what was prepared with a share of the training images; the others stay out of all splits."""
    if share == 1:
        return prepared
    manifest: Manifest = prepared.manifest
    rows, strata = manifest.rows(TRAIN), prepared.targets.strata
    names = {name: i for i, name in enumerate(dict.fromkeys(group_key(row) for row in rows))}
    kinds = [next(iter(strata(row)), "") for row in rows]
    places = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    groups = np.array([names[group_key(row)] for row in rows])
    drawn = stratified(
        np.array([places[kind] for kind in kinds]),
        groups,
        share,
        np.random.default_rng(prepared.manifest.frame.height),
    )
    kept = {rows[i].id for i in drawn}
    if not kept or len(kept) == len(rows):
        raise DataError("There are too few training images to leave half of them out. Add images.")
    left = [row for row in manifest.rows(state=None) if row.split != TRAIN or row.id in kept]
    return prepared._replace(manifest=manifest.replace(left))


def _deviation(score: Number) -> float | None:
    """Return the standard deviation that a 95 % interval tells; None where there is none."""
    if score.low is None or score.high is None:
        return None
    return (score.high - score.low) / (2 * NormalDist().inv_cdf(0.975))
