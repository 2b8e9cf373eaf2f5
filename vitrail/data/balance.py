"""Two answers to classes of unequal size: weigh the loss, or draw the rare classes more often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.data.manifest import Row


def class_weights(rows: Sequence[Row], classes: Sequence[str]) -> NDArray[np.float32]:
    """Return the weight of each class in the loss, (k,): the inverse of its share, 1 on the average over pictures.

    For several labels a row, use `positive_weights`.
    """
    counts = _counts(rows, classes)
    present = counts > 0
    weights = np.where(present, counts.sum() / np.maximum(counts, 1) / max(1, present.sum()), 1.0)
    return weights.astype(np.float32)


def positive_weights(rows: Sequence[Row], classes: Sequence[str]) -> NDArray[np.float32]:
    """Return how much a present label weighs against an absent one, (k,): absent rows a present row."""
    counts = _counts(rows, classes)
    return np.where(counts > 0, (len(rows) - counts) / np.maximum(counts, 1), 1.0).astype(np.float32)


def sampling_weights(rows: Sequence[Row], classes: Sequence[str]) -> NDArray[np.float64]:
    """Return the chance of each row to be drawn, (n,), sum 1: every class is drawn equally often.

    A row of several labels counts by its rarest; a row of none as a class of its own.
    """
    counts = dict(zip(classes, _counts(rows, classes), strict=True))
    without = sum(not row.labels for row in rows)
    chances = np.array(
        [1 / min((counts[one] for one in row.labels), default=without) for row in rows], np.float64
    )
    normed: NDArray[np.float64] = chances / chances.sum()
    return normed


def _counts(rows: Sequence[Row], classes: Sequence[str]) -> NDArray[np.float64]:
    tally = Counter(one for row in rows for one in row.labels)
    return np.array([tally[name] for name in classes], np.float64)
