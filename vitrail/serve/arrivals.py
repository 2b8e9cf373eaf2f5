"""How images arrive: their rate and how bursty they are, over the last seconds. No torch here."""

from __future__ import annotations

from collections import deque

from vitrail.serve.policy import Arrivals

WINDOW, BINS = 2.0, 20
"""Seconds of which arrivals are counted, and in how many parts."""


class ArrivalRate:
    """Counts images as they come."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()  # (bin, images), without empty ones

    def came(self, now: float, count: int) -> None:
        """Note images that came now, accepted or not."""
        place = int(now * BINS / WINDOW)
        if self._counts and self._counts[-1][0] == place:
            self._counts[-1] = (place, self._counts[-1][1] + count)
        else:
            self._counts.append((place, count))
        while self._counts and self._counts[0][0] <= place - BINS:
            self._counts.popleft()

    def now(self, now: float) -> Arrivals:
        """Return rate and burst of the last seconds: the variance of the counts in their parts over the mean."""
        place = int(now * BINS / WINDOW)
        counts = [count for bin_, count in self._counts if bin_ > place - BINS]
        mean = sum(counts) / BINS
        if not mean:
            return Arrivals()
        variance = sum(count * count for count in counts) / BINS - mean * mean
        return Arrivals(sum(counts) / WINDOW, max(1.0, variance / mean))
