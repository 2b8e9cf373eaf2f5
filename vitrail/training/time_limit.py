"""The elapsed time of a run and, with `--time`, the length of its schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from vitrail.training.loop import Event, Session
from vitrail.training.run_context import RunContext
from vitrail.training.time_budget import Budget


class TimeLimit:
    """Counts the seconds of a run over all resumes, and fits the schedule into `--time`."""

    def __init__(
        self, context: RunContext, session: Session, counters: Mapping[str, Any], images: int
    ) -> None:
        """Start the clock; `images` is the number of images in a validation."""
        self.session = session
        self.before: float = counters.get("elapsed", 0.0)
        self.began = time.monotonic() - context.spent
        self.budget = self._budget(context, counters, images)

    def _budget(self, context: RunContext, counters: Mapping[str, Any], images: int) -> Budget | None:
        """Return the budget for `--time`; a run that was extended by epochs has none."""
        session, seconds = self.session, context.recipe.training.seconds
        if seconds is None or session.schedule.start:
            return None
        cost = session.seconds / session.step if session.step else context.cost
        budget = Budget.guessed(seconds, session.order.steps, cost, images / session.order.batch)
        budget.fixed = counters.get("fixed", False)
        if not budget.fixed:
            total = session.step + max(1, budget.more(self.before))
            session.schedule = replace(session.schedule, total=total)
        return budget

    @property
    def fixed(self) -> bool:
        """Whether the number of steps was decided from measured steps."""
        return self.budget is not None and self.budget.fixed

    def elapsed(self) -> float:
        """Return the seconds since the run began, without the pauses between resumes."""
        return self.before + time.monotonic() - self.began

    def left(self) -> float | None:
        """Return the seconds of `--time` that are left, or None without a limit."""
        return None if self.budget is None else self.budget.seconds - self.elapsed()

    def scored(self, seconds: float) -> None:
        """Record how long a validation took."""
        if self.budget:
            self.budget.scoring = self._mean_over_ranks(seconds)[0]

    def after_step(self, took: float, score: Callable[[], object]) -> Event | None:
        """Decide how many steps fit: once after a few steps, and again when the run is late. Return the event.

        `score` validates once, if there is time to measure a validation.
        """
        budget, session = self.budget, self.session
        if budget is None:
            return None
        took, elapsed = self._mean_over_ranks(took, self.elapsed())
        budget.costs.append(took)
        if not budget.due(session.step, session.schedule.total, elapsed):
            return None
        if not budget.fixed and budget.can_score:
            score()
            elapsed = self._mean_over_ranks(self.elapsed())[0]
        total = session.step + budget.more(elapsed)
        session.schedule = replace(session.schedule, total=total)
        budget.fixed = True
        return Event("planned", session.step, {"total": total, "epochs": total / session.order.steps})

    def _mean_over_ranks(self, *values: float) -> list[float]:
        """Return the mean of each value over all processes, so that all of them decide the same."""
        accelerator = self.session.accelerator
        if accelerator.num_processes == 1:
            return list(values)
        mine = torch.tensor(values, device=accelerator.device)
        return [float(value) for value in accelerator.reduce(mine, reduction="mean")]
