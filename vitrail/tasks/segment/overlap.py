"""Overlap of classes and of their edges, from counts of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


def overlap(table: Array | Counts) -> Array:
    """Return IoU by class from confusion matrices of pixels with truth as rows: (…, k).

    The matrices are (…, k, k), or (…, k, k + 1) with pixels without prediction in the last column. A class that occurs
    neither in the truth nor in the prediction is NaN.
    """
    predicted = table[..., : table.shape[-2]]
    correct = np.diagonal(predicted, axis1=-2, axis2=-1).astype(np.float64)
    union = table.sum(-1) + predicted.sum(-2) - correct
    return ratio(correct, union)


def ratio(part: Any, whole: Any) -> Array:
    """Return the quotient of counts, element by element; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    quotient: Array = np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0
    )
    return quotient


def mean_of(values: Array, present: NDArray[np.bool_]) -> Array:
    """Return the mean over the present classes, where NaN counts as 0: (…, k) -> (…)."""
    total = np.where(present, np.nan_to_num(values), 0.0).sum(-1)
    mean: Array = total / np.maximum(present.sum(-1), 1)
    return mean


def edge_scores(near: Any) -> tuple[Array, Array]:
    """Return boundary F1 and boundary IoU of each class from the counts of `surfaces.edges`: (k,) each."""
    precision, recall = ratio(near[:, 0], near[:, 1]), ratio(near[:, 2], near[:, 3])
    f1 = ratio(2 * np.nan_to_num(precision) * np.nan_to_num(recall), np.nan_to_num(precision + recall))
    return np.nan_to_num(f1), np.nan_to_num(ratio(near[:, 4], near[:, 5]))
