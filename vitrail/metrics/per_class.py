"""Scores of each class with bootstrap intervals over groups, for single-label and multi-label predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.intervals import MOST, Score, Unsure, bootstrap, resampled, wilson
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
    """Recall, F1, AUROC and average precision of each class: row 0 on all images, then on bootstrap samples."""

    recall: Array  # (1 + draws, k)
    f1: Array
    auroc: Array
    average_precision: Array


class PerClass(NamedTuple):
    """The scores of each class, and their means over the classes that occur."""

    parts: tuple[Part, ...]
    means: dict[str, Score]


def per_class(counts: Counts) -> PerClass:
    """Return precision (Wilson's interval), F1, AUROC and average precision (bootstrap intervals) of each class.

    The means over the classes that occur are `recall` (balanced accuracy), `f1`, `auroc` and `map`.
    """
    samples, present = _draw(counts), counts.truth.any(axis=0)
    parts = []
    for i in range(counts.truth.shape[1]):
        images = min(int(counts.truth[:, i].sum()), int((~counts.truth[:, i]).sum()))
        scores = [_score(values[:, i], images) for values in samples[1:]]
        parts.append(Part(_precision(counts, i), *scores))
    names = ("recall", "f1", "auroc", "map")
    means = {
        name: _score(_mean(values[:, present]), len(counts.groups))
        for name, values in zip(names, samples, strict=True)
    }
    return PerClass(tuple(parts), means)


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def _score(values: Array, images: int) -> Score:
    if len(values) == 1:
        value = float(values[0])
        return Unsure(value if np.isfinite(value) else None, "too many images and classes to resample")
    return bootstrap(float(values[0]), values[1:], images)


def _precision(counts: Counts, i: int) -> Score:
    predicted = int(counts.said[:, i].sum())
    if not predicted:
        return Unsure(None, "never predicted")
    return wilson(int((counts.said[:, i] & counts.truth[:, i]).sum()), predicted)


def _draw(counts: Counts) -> _Drawn:
    n, k = counts.truth.shape
    weights = np.ones((1, n))
    if n * k <= MOST:
        weights = np.concatenate([weights, resampled(counts.groups)])
    hits = weights @ (counts.truth & counts.said)
    present, predicted = weights @ counts.truth, weights @ counts.said
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, f1 = hits / present, 2 * hits / (present + predicted)
    # A class without true images has no score, even if it was predicted.
    f1 = np.where(present > 0, f1, np.nan)
    auroc, average = np.empty_like(recall), np.empty_like(recall)
    for start in range(0, len(weights), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        for i in range(k):
            auroc[part, i], average[part, i] = ranking(
                counts.probabilities[:, i], counts.truth[:, i], weights[part]
            )
    return _Drawn(recall, f1, auroc, average)
