"""Scores of each class with bootstrap intervals over groups, for single-label and multi-label predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.intervals import (
    MOST,
    Interval,
    Score,
    Units,
    Unsure,
    bootstrap,
    of_class,
    resampled_units,
    units_of,
)
from vitrail.metrics.kappa import kappa
from vitrail.metrics.ranking import ranking

Array = NDArray[np.float64]

AT_ONCE = 50
"""Bootstrap samples that are ranked in one pass: more would not fit into the CPU cache."""


class Counts(NamedTuple):
    """Group of each image (n,); probability, truth and prediction of each class (n, k)."""

    groups: Sequence[str]
    probabilities: Array
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]


class Part(NamedTuple):
    """The scores of one class."""

    precision: Score
    f1: Score
    auroc: Score
    average_precision: Score

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {name: one.to_dict() for name, one in self._asdict().items()}


class _Drawn(NamedTuple):
    """Recall, F1, AUROC and average precision of each class: row 0 on all images, then on bootstrap samples.

    AUROC and average precision have row 0 only where ranking all samples would take minutes.
    """

    recall: Array  # (1 + draws, k)
    f1: Array
    auroc: Array
    average_precision: Array


class PerClass(NamedTuple):
    """The scores of each class, their means over the classes that occur, and Cohen's kappa.

    `kappa` is meant for one label an image.
    """

    parts: tuple[Part, ...]
    means: dict[str, Score]
    kappa: Score


def per_class(counts: Counts) -> PerClass:
    """Return precision (`of_class`), F1, AUROC and average precision (bootstrap intervals) of each class.

    The means over the classes that occur are `recall` (balanced accuracy, also called average accuracy), `f1`, `auroc`
    and `map`.
    """
    units = units_of(counts.groups)
    drawn = _draws(units, counts.truth.shape[1])
    totals = [drawn @ _of_units(flags, units) for flags in _flags(counts)]
    samples, present = _drawn(counts, units, drawn, totals), counts.truth.any(axis=0)
    parts = []
    for i in range(counts.truth.shape[1]):
        images = min(int(counts.truth[:, i].sum()), int((~counts.truth[:, i]).sum()))
        groups = len(np.unique(units.member[counts.truth[:, i]])) if units.whole else None
        scores = [_score(values[:, i], images, groups) for values in samples[1:]]
        parts.append(Part(_precision(counts, i), *scores))
    names, images = ("recall", "f1", "auroc", "map"), len(counts.groups)
    means = {
        name: _score(_mean(values[:, present]), images, units.groups)
        for name, values in zip(names, samples, strict=True)
    }
    return PerClass(tuple(parts), means, _score(kappa(*totals), images, units.groups))


def recall_of(counts: Counts, i: int) -> Interval:
    """Return the share of the images of class i that got it."""
    return _share(counts, counts.said[:, i], counts.truth[:, i])


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def _score(values: Array, images: int, groups: int | None) -> Score:
    if len(values) == 1:
        value = float(values[0])
        return Unsure(value if np.isfinite(value) else None, "too many images and classes to resample")
    return bootstrap(float(values[0]), values[1:], images, groups)


def _precision(counts: Counts, i: int) -> Score:
    if not counts.said[:, i].any():
        return Unsure(None, "never predicted")
    return _share(counts, counts.truth[:, i], counts.said[:, i])


def _share(counts: Counts, right: NDArray[np.bool_], among: NDArray[np.bool_]) -> Interval:
    chosen = np.flatnonzero(among).tolist()
    return of_class(right[chosen].tolist(), [counts.groups[place] for place in chosen])


def _flags(counts: Counts) -> tuple[NDArray[np.bool_], ...]:
    """Return hits, truth and predictions of each image and class: (n, k) each."""
    return counts.truth & counts.said, counts.truth, counts.said


def _of_units(flags: NDArray[np.bool_], units: Units) -> Array:
    """Return how many images of each unit have a flag, class by class: (units, k)."""
    columns = [
        np.bincount(units.member, weights=flags[:, i], minlength=units.number) for i in range(flags.shape[1])
    ]
    return np.stack(columns, axis=1)


def _draws(units: Units, classes: int) -> Array:
    """Return how often each unit is drawn, first all once, then in each sample: (1 + draws, units)."""
    whole = np.ones((1, units.number))
    if units.number * classes > MOST:
        return whole
    return np.concatenate([whole, resampled_units(units.number)])


def _drawn(counts: Counts, units: Units, drawn: Array, totals: Sequence[Array]) -> _Drawn:
    hits, present, predicted = totals
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, f1 = hits / present, 2 * hits / (present + predicted)
    # A class without true images has no score, even if it was predicted.
    f1 = np.where(present > 0, f1, np.nan)
    n, k = counts.truth.shape
    ranked = drawn if n * k <= MOST else drawn[:1]
    auroc, average = np.empty((len(ranked), k)), np.empty((len(ranked), k))
    for start in range(0, len(ranked), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        weights = ranked[part][:, units.member]
        for i in range(k):
            auroc[part, i], average[part, i] = ranking(
                counts.probabilities[:, i], counts.truth[:, i], weights
            )
    return _Drawn(recall, f1, auroc, average)
