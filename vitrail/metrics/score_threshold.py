"""Precision, recall and F1 of predictions by the score from which they count, and the best such threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

FEWEST = 5
"""With fewer true ones the threshold stays 0.5."""


class ThresholdCurve(NamedTuple):
    """Precision, recall and F1 at thresholds, all (m,); precision is NaN where no score reaches the threshold."""

    thresholds: Array
    precision: Array
    recall: Array
    f1: Array


def threshold_curve(scores: Array, right: Flags, truths: int, thresholds: Array) -> ThresholdCurve:
    """Return the scores of predictions with at least each threshold: scores and right (n,), thresholds (m,).

    `truths` is the number of true ones, predicted or not.
    """
    order = np.argsort(scores, kind="stable")
    below = np.searchsorted(scores[order], thresholds, side="left")
    predicted = (len(scores) - below).astype(np.float64)
    hits = (right.sum() - np.concatenate([[0], np.cumsum(right[order])])[below]).astype(np.float64)
    precision = np.divide(hits, predicted, out=np.full(len(hits), np.nan), where=predicted > 0)
    recall = hits / truths if truths else np.full(len(hits), np.nan)
    whole = predicted + truths
    f1 = np.divide(2 * hits, whole, out=np.full(len(hits), np.nan), where=whole > 0)
    return ThresholdCurve(thresholds, precision, recall, f1)


def best_threshold(scores: Array, right: Flags, truths: int) -> float:
    """Return the threshold with the best F1, half way between the two scores that it separates.

    Scores and right are (n,); `truths` is the number of true ones, predicted or not. Return 0.5 if there are too few.
    """
    if truths < FEWEST or not right.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + truths)
    last = np.append(np.diff(ordered) != 0, True)  # a threshold cannot separate equal scores
    best = int(np.argmax(np.where(last, f1, -1.0)))
    below = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return round(float((ordered[best] + below) / 2), 6)
