"""How many steps fit into the time of `--time`: guessed before the first step, fixed after a few, fewer when late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

CALIBRATION_STEPS = 20
"""After so many steps at the latest the number of steps is fixed."""

EARLY = 0.1
"""The share of the time after which it is fixed however few steps there were."""

USED = 0.97
"""The share of the time that steps and scores may take; the rest is for saving."""

LATE = 1.1
"""A run that would take more than so many times its time gets fewer steps."""

FORWARD = 1 / 3
"""What scoring an image costs of training on it, until it was measured."""

AFFORDABLE = 0.05
"""The share of the time that measuring an evaluation may take."""


@dataclass
class Budget:
    """The time of a run, in seconds; `epoch` is its steps, `scoring` the seconds of one evaluation."""

    seconds: float
    epoch: int
    scoring: float
    fixed: bool = False
    costs: deque[float] = field(default_factory=lambda: deque(maxlen=CALIBRATION_STEPS // 2))

    @classmethod
    def guessed(cls, seconds: float, epoch: int, cost: float, share: float) -> Budget:
        """Return a budget from the seconds of one step; `share`: images to score for each one of a step."""
        budget = cls(seconds, epoch, scoring=cost * share * FORWARD)
        budget.costs.append(cost)
        return budget

    @property
    def step(self) -> float:
        """Seconds of a step: the median of the last ones, for the first of all also pay for set-up."""
        return median(self.costs)

    @property
    def can_score(self) -> bool:
        """Whether there is time to measure an evaluation."""
        return self.scoring <= AFFORDABLE * self.seconds

    def more(self, elapsed: float) -> int:
        """Return how many more steps fit, counting one evaluation an epoch and one at the end."""
        left = USED * self.seconds - elapsed - self.scoring
        return max(0, int(left / (self.step + self.scoring / self.epoch)))

    def due(self, step: int, total: int, elapsed: float) -> bool:
        """Tell whether the number of steps must be decided now: it is not fixed and seen enough, or much too high."""
        if not self.fixed:
            return step >= CALIBRATION_STEPS or elapsed >= EARLY * self.seconds or step + 1 >= total
        left = (total - step) * (self.step + self.scoring / self.epoch) + self.scoring
        return step < total and elapsed + left > LATE * self.seconds
