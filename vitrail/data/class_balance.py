"""Two methods for unbalanced classes: weights in the loss, or more frequent sampling of rare classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.data.findings import Strata
from vitrail.data.manifest import Row


def class_weights(rows: Sequence[Row], classes: Sequence[str], strata: Strata) -> NDArray[np.float32]:
    """Return the weight of each class in the loss, (k,): its inverse frequency, with mean 1 over the images.

    For several labels a row, use `positive_weights`.
    """
    counts = _counts(rows, classes, strata)
    present = counts > 0
    weights = np.where(present, counts.sum() / np.maximum(counts, 1) / max(1, present.sum()), 1.0)
    return weights.astype(np.float32)


def positive_weights(rows: Sequence[Row], classes: Sequence[str], strata: Strata) -> NDArray[np.float32]:
    """Return the weight of a present label relative to an absent one, (k,): absent rows / present rows."""
    counts = _counts(rows, classes, strata)
    return np.where(counts > 0, (len(rows) - counts) / np.maximum(counts, 1), 1.0).astype(np.float32)


def sampling_weights(rows: Sequence[Row], strata: Strata) -> NDArray[np.float64]:
    """Return the sampling probability of each row, (n,), with sum 1: every stratum is drawn equally often.

    A row in several strata counts for its rarest one; rows without a stratum form their own stratum.
    """
    strata_of = [strata(row) for row in rows]
    counts = Counter(one for own in strata_of for one in own)
    without = sum(not own for own in strata_of)
    sizes = [min((counts[one] for one in own), default=without) for own in strata_of]
    chances = np.array([1 / size for size in sizes], np.float64)
    normed: NDArray[np.float64] = chances / chances.sum()
    return normed


def _counts(rows: Sequence[Row], classes: Sequence[str], strata: Strata) -> NDArray[np.float64]:
    tally = Counter(one for row in rows for one in strata(row))
    return np.array([tally[name] for name in classes], np.float64)
