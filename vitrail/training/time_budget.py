"""The number of steps that fit into `--time`: estimated before the first step, fixed after a few, reduced when late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

CALIBRATION_STEPS = 20
"""The number of steps is fixed after this many steps at the latest."""

EARLY = 0.1
"""The number of steps is fixed after this fraction of the time, even after very few steps."""

USED = 0.97
"""The fraction of the time for steps and evaluations; the rest is for saving."""

LATE = 1.1
"""A run that would take more than this multiple of its time gets fewer steps."""

FORWARD = 1 / 3
"""Assumed time to evaluate an image, relative to training on it, until it is measured."""

AFFORDABLE = 0.05
"""The largest fraction of the time that may be used for measuring an evaluation."""


@dataclass
class Budget:
    """The time of a run, in seconds; `epoch` is the steps per epoch, `scoring` the seconds of one evaluation."""

    seconds: float
    epoch: int
    scoring: float
    fixed: bool = False
    costs: deque[float] = field(default_factory=lambda: deque(maxlen=CALIBRATION_STEPS // 2))

    @classmethod
    def guessed(cls, seconds: float, epoch: int, cost: float, share: float) -> Budget:
        """Return a budget from the seconds of one step; `share`: images to evaluate, divided by the batch."""
        budget = cls(seconds, epoch, scoring=cost * share * FORWARD)
        budget.costs.append(cost)
        return budget

    @property
    def step(self) -> float:
        """Seconds of a step: the median of the last ones, because the first ones include set-up."""
        return median(self.costs)

    @property
    def can_score(self) -> bool:
        """Whether there is time to measure an evaluation."""
        return self.scoring <= AFFORDABLE * self.seconds

    def more(self, elapsed: float) -> int:
        """Return how many more steps fit, with one evaluation per epoch and one at the end."""
        left = USED * self.seconds - elapsed - self.scoring
        return max(0, int(left / (self.step + self.scoring / self.epoch)))

    def due(self, step: int, total: int, elapsed: float) -> bool:
        """Tell whether to decide the number of steps now: not yet fixed after enough steps, or much too high."""
        if not self.fixed:
            return step >= CALIBRATION_STEPS or elapsed >= EARLY * self.seconds or step + 1 >= total
        left = (total - step) * (self.step + self.scoring / self.epoch) + self.scoring
        return step < total and elapsed + left > LATE * self.seconds
