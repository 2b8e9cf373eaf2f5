"""AUROC and average precision, also for many bootstrap weightings in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Ranking(NamedTuple):
    """Area under the ROC curve and average precision, one number per weighting; NaN without positives or negatives."""

    auroc: Array
    average_precision: Array


def ranking(scores: Array, truth: NDArray[np.bool_], weights: Array | None = None) -> Ranking:
    """Return both scores of one class: scores (n,), truth (n,), weights (draws, n); None weighs every image 1.

    Equal scores count as one threshold, as scikit-learn counts them.
    """
    each = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    heavy, yes = each[:, order], truth[order]
    hits = np.cumsum(heavy * yes, axis=1)[:, ends]
    misses = np.cumsum(heavy * ~yes, axis=1)[:, ends]
    more = np.diff(hits, axis=1, prepend=0.0)
    wrong = np.diff(misses, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (wrong * (hits - more / 2)).sum(axis=1) / (hits[:, -1] * misses[:, -1])
        # Without any drawn image up to a threshold, that threshold adds nothing.
        precision = np.where(hits + misses > 0, hits / (hits + misses), 0.0)
        average = (more * precision).sum(axis=1) / hits[:, -1]
    return Ranking(area, average)


def mean_average_precision(scores: Array, truth: NDArray[np.bool_]) -> float:
    """Return the mean over the labels that occur: scores and truth (n, k); 0 where none occurs."""
    values = [
        float(ranking(scores[:, i], truth[:, i]).average_precision[0])
        for i in range(truth.shape[1])
        if truth[:, i].any()
    ]
    return float(np.mean(values)) if values else 0.0
