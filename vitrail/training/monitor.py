"""Handle the events of the training loop: history, listeners, time limit, validation, checkpoints, live images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vitrail.data.manifest import VAL
from vitrail.training.checkpointing import Checkpointer
from vitrail.training.live_images import Live
from vitrail.training.loop import Event, Session
from vitrail.training.progress import note
from vitrail.training.run_context import RunContext
from vitrail.training.time_limit import TimeLimit
from vitrail.training.validation import Scored, Validation


class Monitor:
    """Passes each event of a training to the parts that act on it, always in the same order."""

    def __init__(self, context: RunContext, session: Session, counters: Mapping[str, Any]) -> None:
        self.context, self.session = context, session
        images = context.pictures(VAL)
        self.validation = Validation(session, images, context.recipe.training.patience, counters)
        self.checkpointer = Checkpointer(context, session, counters)
        self.time = TimeLimit(context, session, counters, len(images))
        self.live = Live(context.run, images)

    def on_event(self, event: Event) -> None:
        """Handle an event of the loop. Listeners get it after the schedule is set and before validation and saving."""
        if event.kind == "step" and (planned := self.time.after_step(event.values["seconds"], self._score)):
            if self._main:
                self.save()
            self._publish(planned)
        self._publish(event)
        if event.kind == "epoch":
            self._on_epoch(event)
        elif event.kind == "step" and self.checkpointer.is_due():
            self.save()

    def save(self) -> None:
        """Save the state for resuming; raise a DivergedError if weights or predictions are not finite."""
        self.checkpointer.refuse_non_finite()
        self._save_state()

    def _on_epoch(self, event: Event) -> None:
        scored = self._score()
        scores, main = scored.scores, scored.main
        if not math.isfinite(scores.get("loss", 0.0)):
            raise self.checkpointer.diverged(f"the validation loss is {scores['loss']}")
        better = self.validation.is_best(scored)
        if self._main:
            self.checkpointer.refuse_non_finite()
            if better:
                self.checkpointer.save_model()
            self._save_state()
            note(self.context.listeners, self.live.draw(self.session))
        best = main.sign * self.validation.best[0]
        values = {**event.values, **scores, "main": main.name, "best": best, "better": better}
        values |= {"seconds": round(self.time.elapsed(), 2), "unit": main.unit, **scored.span}
        self._publish(Event("score", event.step, values))

    def _score(self) -> Scored:
        scored = self.validation.score()
        self.time.scored(scored.seconds)
        return scored

    def _save_state(self) -> None:
        self.checkpointer.save_state(
            {
                "best": self.validation.best,
                "best_epoch": self.validation.best_epoch,
                "elapsed": self.time.elapsed(),
                "fixed": self.time.fixed,
            }
        )

    def _publish(self, event: Event) -> None:
        self._log(event)
        self.context.publish(event)

    def _log(self, event: Event) -> None:
        if self._main:
            self.context.run.log(event.kind, {"step": event.step, **event.values})

    @property
    def _main(self) -> bool:
        main: bool = self.session.accelerator.is_main_process
        return main
