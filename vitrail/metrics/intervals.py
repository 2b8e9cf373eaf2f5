"""Confidence intervals of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 10
"""With fewer images of a class, no bootstrap interval is reported."""

DRAWS = 1000
MOST = 1_000_000
"""Images × classes above which resampling would take minutes; the scores are then reported without interval."""


class Interval(NamedTuple):
    """A score from 0 to 1 with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data, six digits."""
        return {name: round(part, 6) for name, part in self._asdict().items()}

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %, {100 * self.low:.1f} – {100 * self.high:.1f}"


class Unsure(NamedTuple):
    """A score without an interval, and the reason."""

    value: float | None
    why: str
    low: None = None
    high: None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, six digits; the interval is null."""
        value = None if self.value is None else round(self.value, 6)
        return {"value": value, "low": None, "high": None, "why": self.why}


Score = Interval | Unsure


def wilson(right: float, count: float, confidence: float = 0.95) -> Interval:
    """Return a share with Wilson's interval (1927, JASA 22), which is accurate also near 0 and 1.

    Without images the interval is 0 … 1.
    """
    if count == 0:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # At 0 and 1, rounding must not move the share out of its own interval.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def of_groups(right: Sequence[float], groups: Sequence[str]) -> Interval:
    """Return a share of images with its interval, where a group (duplicates, for example) counts as one unit.

    `groups` holds one key per image. A group is assumed to be correct or wrong as a whole, so n images in groups
    of sizes m are worth n² / Σ m² independent images (Kish 1965, Survey Sampling).
    """
    if not groups:
        return wilson(0, 0)
    sizes = Counter(groups).values()
    worth = len(groups) ** 2 / sum(size * size for size in sizes)
    return wilson(sum(right) / len(groups) * worth, worth)


def resampled(groups: Sequence[str], seed: int = 0) -> NDArray[np.float64]:
    """Return how often each image is drawn in each of 1,000 bootstrap samples of whole groups: (draws, n)."""
    _, member = np.unique(groups, return_inverse=True)
    units = int(member.max()) + 1
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(units, np.full(units, 1 / units), size=DRAWS)
    return counts[:, member].astype(np.float64)


def bootstrap(value: float, samples: NDArray[np.float64], images: int) -> Score:
    """Return a score with its percentile interval (Efron 1979) from its values in bootstrap samples.

    Return `Unsure` where too few images or values allow no interval.
    """
    if not np.isfinite(value):
        return Unsure(None, "not defined on these images")
    if images < FEWEST:
        return Unsure(value, f"fewer than {FEWEST} images")
    finite = samples[np.isfinite(samples)]
    if len(finite) < DRAWS // 2:
        return Unsure(value, "too few images to resample")
    low, high = np.quantile(finite, [0.025, 0.975])
    if high - low < 1e-9:
        return Unsure(value, "no mistake to resample")
    return Interval(value, float(min(low, value)), float(max(high, value)))
