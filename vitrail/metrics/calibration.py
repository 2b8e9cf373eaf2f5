"""Whether probabilities keep their word: expected calibration error beside what chance alone would show."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.intervals import Interval, wilson

Array = NDArray[np.float64]

BINS = 15
DRAWS = 500


class Bin(NamedTuple):
    """Answers whose probability lies in one span: how sure they were, how often they were right."""

    sure: float
    right: Interval
    answers: int


class Calibration(NamedTuple):
    """Calibration errors in parts of one: with temperature 1, with the model's own, and of a perfect model."""

    ece_before: float
    ece_after: float
    ece_noise: float
    temperature: float
    answers: int
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, six digits."""
        bins = [
            {"sure": round(b.sure, 4), "right": b.right.to_dict(), "answers": b.answers} for b in self.bins
        ]
        numbers = {name: round(getattr(self, name), 6) for name in self._fields[:4]}
        return {**numbers, "answers": self.answers, "bins": bins}

    def words(self) -> str:
        """Say how far the probabilities can be trusted."""
        return (
            f"probabilities are honest to {100 * self.ece_after:.1f} points "
            f"(chance alone would show {100 * self.ece_noise:.1f})"
        )


def ece(sure: Array, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3; 15 spans of equal width)."""
    if not len(sure):
        return 0.0
    off = np.bincount(_bin(sure), weights=right - sure, minlength=BINS)
    return float(np.abs(off).sum() / len(sure))


def noise(sure: Array, seed: int = 0) -> float:
    """Return the error that a perfectly calibrated model with these very probabilities would show on average.

    Each answer is right with just the probability it was given, 500 times over.
    """
    if not len(sure):
        return 0.0
    draw, place = np.random.default_rng(seed), _bin(sure)
    found = []
    for _ in range(DRAWS):
        off = np.bincount(place, weights=(draw.random(len(sure)) < sure) - sure, minlength=BINS)
        found.append(np.abs(off).sum() / len(sure))
    return float(np.mean(found))


def bins(sure: Array, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the spans that hold answers, with Wilson intervals."""
    place = _bin(sure)
    return tuple(
        Bin(
            float(sure[place == i].mean()),
            wilson(int(right[place == i].sum()), int((place == i).sum())),
            int((place == i).sum()),
        )
        for i in np.unique(place)
    )


def calibration(before: Array, after: Array, temperature: float, hits: NDArray[np.bool_]) -> Calibration:
    """Compare how sure answers were, with temperature 1 and with the model's own, with what was right: all (n,)."""
    return Calibration(
        ece(before, hits), ece(after, hits), noise(after), temperature, len(after), bins(after, hits)
    )


def _bin(sure: Array) -> NDArray[np.int64]:
    return np.minimum((sure * BINS).astype(np.int64), BINS - 1)
