"""Expected calibration error, compared with the error that a perfectly calibrated model shows by chance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.intervals import Interval, wilson

Array = NDArray[np.float64]

BINS = 15
DRAWS = 500


class Bin(NamedTuple):
    """The predictions of one probability bin: mean confidence, accuracy and number of predictions."""

    sure: float
    right: Interval
    answers: int


class Calibration(NamedTuple):
    """Calibration errors from 0 to 1: at temperature 1, at the model's temperature, and of a perfect model."""

    ece_before: float
    ece_after: float
    ece_noise: float
    temperature: float
    answers: int
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, rounded to six digits."""
        bins = [
            {"sure": round(b.sure, 4), "right": b.right.to_dict(), "answers": b.answers} for b in self.bins
        ]
        numbers = {name: round(getattr(self, name), 6) for name in self._fields[:4]}
        return {**numbers, "answers": self.answers, "bins": bins}

    def words(self) -> str:
        """Return one sentence: the calibration error and the error expected by chance."""
        return (
            f"probabilities are off by {100 * self.ece_after:.1f} points on average "
            f"({100 * self.ece_noise:.1f} expected by chance)"
        )


def ece(sure: Array, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3; 15 bins of equal width)."""
    if not len(sure):
        return 0.0
    gap = np.bincount(_bin(sure), weights=right - sure, minlength=BINS)
    return float(np.abs(gap).sum() / len(sure))


def noise(sure: Array, seed: int = 0) -> float:
    """Return the mean calibration error that a perfectly calibrated model with these probabilities would show.

    It is simulated 500 times: each prediction is correct with exactly its probability.
    """
    if not len(sure):
        return 0.0
    rng, indices = np.random.default_rng(seed), _bin(sure)
    errors = []
    for _ in range(DRAWS):
        gap = np.bincount(indices, weights=(rng.random(len(sure)) < sure) - sure, minlength=BINS)
        errors.append(np.abs(gap).sum() / len(sure))
    return float(np.mean(errors))


def bins(sure: Array, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the bins that are not empty, with Wilson intervals."""
    indices = _bin(sure)
    return tuple(
        Bin(
            float(sure[indices == i].mean()),
            wilson(int(right[indices == i].sum()), int((indices == i).sum())),
            int((indices == i).sum()),
        )
        for i in np.unique(indices)
    )


def calibration(before: Array, after: Array, temperature: float, hits: NDArray[np.bool_]) -> Calibration:
    """Compare confidence with correctness, all (n,): `before` at temperature 1, `after` at the model's temperature."""
    return Calibration(
        ece(before, hits), ece(after, hits), noise(after), temperature, len(after), bins(after, hits)
    )


def _bin(sure: Array) -> NDArray[np.int64]:
    return np.minimum((sure * BINS).astype(np.int64), BINS - 1)
