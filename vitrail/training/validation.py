"""Evaluate on the validation images after every epoch, and keep the best score."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.tasks.result import Evaluation, Kept, headline, kept_by
from vitrail.training.loop import Session, evaluate

ROUNDED = 1e-5
"""Largest difference of one score that was rounded in two places."""


REHEARSED = 2
"""Images that are evaluated before the first step."""


class Scored(NamedTuple):
    """Scores by name, the main score, the seconds that the evaluation took, and the 95 % interval if it is cheap."""

    scores: dict[str, float]
    main: Kept
    seconds: float
    span: dict[str, float]


class Validation:
    """Evaluates the network that is saved, and remembers the best score of the run."""

    def __init__(
        self, session: Session, images: ImageDataset, patience: int | None, counters: Mapping[str, Any]
    ) -> None:
        self.session, self.images, self.patience = session, images, patience
        self.best: list[float] = counters.get("best", [])
        self.best_epoch: float = counters.get("best_epoch", 0.0)

    def rehearse(self) -> None:
        """Evaluate a few images before the first step: what fails there would fail after the first epoch."""
        rows = self.images.rows[:REHEARSED]
        self._evaluated(
            ImageDataset(rows, self.images.root, self.images.preprocess, self.images.targets)
        ).scores()

    def score(self) -> Scored:
        """Evaluate the validation images once, distributed over the processes."""
        began = time.monotonic()
        result = self._evaluated(self.images)
        scores, main, seconds = result.scores(), kept_by(result), time.monotonic() - began
        return Scored(scores, main, seconds, _span(result, scores[main.name]))

    def _evaluated(self, images: ImageDataset) -> Evaluation:
        accelerator = self.session.accelerator
        share = Share(accelerator.process_index, accelerator.num_processes)
        batch = max(64, -(-self.session.order.batch // self.session.pieces))
        rows = {row.id: row for row in images.rows}
        return evaluate(self.session, evaluation(images, batch, share), rows)

    def is_best(self, scored: Scored) -> bool:
        """Tell whether these scores are the best so far, and if so remember them. Ties are broken by the loss."""
        rank = [scored.main.sign * scored.scores[scored.main.name], -scored.scores.get("loss", 0.0)]
        better = not self.best or rank > self.best
        if better:
            self.best, self.best_epoch = rank, self.session.epoch
        return better

    def patience_ran_out(self) -> bool:
        """Tell whether the last `patience` epochs brought no better score."""
        if self.patience is None or not self.best:
            return False
        session = self.session
        extended = math.ceil(
            session.schedule.start / session.order.steps
        )  # the epoch where the run was extended
        return session.epoch - max(self.best_epoch, extended) >= self.patience


def _span(evaluation: Evaluation, main: float) -> dict[str, float]:
    """Return the interval of the main score as "low" and "high"; nothing if it takes resampling, or has none."""
    if not getattr(evaluation, "quick_headline", False):
        return {}
    number = headline(evaluation)
    if (
        number.value is None
        or number.low is None
        or number.high is None
        or abs(number.value - main) > ROUNDED
    ):
        return {}  # the most important score is not the one that selects the weights
    return {"low": number.low, "high": number.high}
