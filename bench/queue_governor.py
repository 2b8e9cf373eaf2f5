"""The usual way to give accuracy for speed, beside which `bench.serve` puts ours: a governor of the queue's length."""

from __future__ import annotations

from collections.abc import Sequence

from vitrail.serve.policy import Decision, Moment, Point, feasible
from vitrail.serve.speeds import Speeds

HIGH, LOW = 4, 2
"""Waiting images above which the governor goes to a cheaper point, and below which to a more accurate one."""


class QueueGovernor:
    """Steps along the points by the number of images that wait, one step a batch.

    It knows no deadline, but admits what the server's own policy would admit, so that only the choice of points
    differs. `points`: the most accurate first, each next one quicker. `largest`: images of a batch at most.
    """

    def __init__(
        self, points: Sequence[Point], speeds: Speeds, largest: int, high: int = HIGH, low: int = LOW
    ) -> None:
        self.points, self.speeds, self.largest, self.high, self.low = points, speeds, largest, high, low
        self.place = 0

    def decide(self, moment: Moment) -> Decision:
        """Return the next batch: as many images as wait, at the point of the moment."""
        waiting = len(moment.waiting)
        if waiting > self.high:
            self.place = min(self.place + 1, len(self.points) - 1)
        elif waiting < self.low:
            self.place = max(self.place - 1, 0)
        return Decision(self.points[self.place].name, min(waiting, self.largest))

    def admits(self, moment: Moment) -> bool:
        """Tell whether all images that wait can be answered in time at the cheapest point."""
        return feasible(moment, self.speeds, self.points[-1].name, self.largest)

    def learned(self, in_time: bool) -> None:
        """Learn nothing."""
