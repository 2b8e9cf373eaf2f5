"""How sure a score is, given how many pictures it was counted on."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """A score with its 95 % interval, in parts of one."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data, four digits."""
        return {name: round(part, 4) for name, part in self._asdict().items()}

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} – {self.high:.1%})"


def wilson(right: int, count: int, confidence: float = 0.95) -> Interval:
    """Return a share with Wilson's interval (1927, JASA 22), which keeps its promise also near 0 and 1.

    Of no pictures nothing is known: 0 … 1.
    """
    if count == 0:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # Rounding must not push the share itself out of its own interval at 0 and 1.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))
