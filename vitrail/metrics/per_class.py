"""Scores of each class with intervals by resampling whole groups, for one class an image and for several alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.intervals import MOST, Score, Unsure, bootstrap, resampled, wilson
from vitrail.metrics.ranking import ranking

Array = NDArray[np.float64]

AT_ONCE = 50
"""Bootstrap samples that are ranked in one pass: more would leave the processor's cache."""


class Counts(NamedTuple):
    """What stands together (n,); of each class its probability, whether it is there, whether it was answered (n, k)."""

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
    """Recall, F1, AUROC and average precision of each class: first as counted, then in bootstrap samples."""

    recall: Array  # (1 + draws, k)
    f1: Array
    auroc: Array
    average_precision: Array


class PerClass(NamedTuple):
    """The scores of each class, and their means over the classes that occur."""

    parts: tuple[Part, ...]
    means: dict[str, Score]


def per_class(counts: Counts) -> PerClass:
    """Return precision (a share, with Wilson's interval), F1, AUROC and average precision (resampled) of each class.

    The means over the classes that occur are `recall` (balanced accuracy), `f1`, `auroc` and `map`.
    """
    found, there = _draw(counts), counts.truth.any(axis=0)
    parts = []
    for i in range(counts.truth.shape[1]):
        pictures = min(int(counts.truth[:, i].sum()), int((~counts.truth[:, i]).sum()))
        told = [_told(values[:, i], pictures) for values in found[1:]]
        parts.append(Part(_precision(counts, i), *told))
    names = ("recall", "f1", "auroc", "map")
    means = {
        name: _told(_mean(values[:, there]), len(counts.groups))
        for name, values in zip(names, found, strict=True)
    }
    return PerClass(tuple(parts), means)


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def _told(values: Array, pictures: int) -> Score:
    if len(values) == 1:
        value = float(values[0])
        return Unsure(value if np.isfinite(value) else None, "too many images and classes to resample")
    return bootstrap(float(values[0]), values[1:], pictures)


def _precision(counts: Counts, i: int) -> Score:
    said = int(counts.said[:, i].sum())
    if not said:
        return Unsure(None, "never answered")
    return wilson(int((counts.said[:, i] & counts.truth[:, i]).sum()), said)


def _draw(counts: Counts) -> _Drawn:
    n, k = counts.truth.shape
    weights = np.ones((1, n))
    if n * k <= MOST:
        weights = np.concatenate([weights, resampled(counts.groups)])
    hits = weights @ (counts.truth & counts.said)
    there, answered = weights @ counts.truth, weights @ counts.said
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, f1 = hits / there, 2 * hits / (there + answered)
    # A class that is not there has no score of its own, even if it was answered.
    f1 = np.where(there > 0, f1, np.nan)
    auroc, average = np.empty_like(recall), np.empty_like(recall)
    for start in range(0, len(weights), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        for i in range(k):
            found = ranking(counts.probabilities[:, i], counts.truth[:, i], weights[part])
            auroc[part, i], average[part, i] = found
    return _Drawn(recall, f1, auroc, average)
