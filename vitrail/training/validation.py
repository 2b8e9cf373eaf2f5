"""Scores on validation images after every epoch, and the best of them so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.tasks.result import Kept, kept_by
from vitrail.training.loop import Session, evaluate


class Scored(NamedTuple):
    """Scores by name, the one that decides, and the seconds they took."""

    scores: dict[str, float]
    main: Kept
    seconds: float


class Validation:
    """Scores the network that is kept, and knows the best score of the run."""

    def __init__(
        self, session: Session, images: ImageDataset, patience: int | None, counters: Mapping[str, Any]
    ) -> None:
        self.session, self.images, self.patience = session, images, patience
        self.best: list[float] = counters.get("best", [])
        self.best_epoch: float = counters.get("best_epoch", 0.0)

    def score(self) -> Scored:
        """Score the validation images once, spread over the processes."""
        began = time.monotonic()
        accelerator = self.session.accelerator
        share = Share(accelerator.process_index, accelerator.num_processes)
        batch = max(64, -(-self.session.order.batch // self.session.pieces))
        rows = {row.id: row for row in self.images.rows}
        found = evaluate(self.session, evaluation(self.images, batch, share), rows)
        scores = found.scores()
        return Scored(scores, kept_by(found), time.monotonic() - began)

    def is_best(self, scored: Scored) -> bool:
        """Tell whether these scores are the best so far, and remember them if they are."""
        standing = [scored.main.sign * scored.scores[scored.main.name], -scored.scores.get("loss", 0.0)]
        better = not self.best or standing > self.best
        if better:
            self.best, self.best_epoch = standing, self.session.epoch
        return better

    def patience_ran_out(self) -> bool:
        """Tell whether too many epochs went by without a better score."""
        if self.patience is None or not self.best:
            return False
        session = self.session
        anew = math.ceil(session.schedule.start / session.order.steps)  # the epoch where more were asked for
        return session.epoch - max(self.best_epoch, anew) >= self.patience
