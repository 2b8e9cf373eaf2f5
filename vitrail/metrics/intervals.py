"""How sure a score is, given how many images it was counted on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 10
"""Below so many images of a class no interval is told for what has to be resampled."""

DRAWS = 1000
MOST = 1_000_000
"""Images times classes beyond which resampling would take minutes; the scores then stand without interval."""


class Interval(NamedTuple):
    """A score with its 95 % interval, in parts of one."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data, six digits."""
        return {name: round(part, 6) for name, part in self._asdict().items()}

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %, {100 * self.low:.1f} – {100 * self.high:.1f}"


class Unsure(NamedTuple):
    """A score of which no interval can be told, and why."""

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
    """Return a share with Wilson's interval (1927, JASA 22), which keeps its promise also near 0 and 1.

    Of no images nothing is known: 0 … 1.
    """
    if count == 0:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # Rounding must not push the share itself out of its own interval at 0 and 1.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def of_groups(right: Sequence[float], groups: Sequence[str]) -> Interval:
    """Return a share of images with an interval in which twins and other groups count once: a key an image.

    A group is taken to be answered rightly or wrongly as a whole, so n images in groups of sizes m are worth
    n² / Σ m² independent ones (Kish 1965, Survey Sampling).
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


def bootstrap(value: float, found: NDArray[np.float64], pictures: int) -> Score:
    """Return a score with its percentile interval (Efron 1979), if its values in bootstrap samples tell one."""
    if not np.isfinite(value):
        return Unsure(None, "the images do not tell")
    if pictures < FEWEST:
        return Unsure(value, f"fewer than {FEWEST} images")
    sure = found[np.isfinite(found)]
    if len(sure) < DRAWS // 2:
        return Unsure(value, "too few images to resample")
    low, high = np.quantile(sure, [0.025, 0.975])
    if high - low < 1e-9:
        return Unsure(value, "no mistake to resample")
    return Interval(value, float(min(low, value)), float(max(high, value)))
