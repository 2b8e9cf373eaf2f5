"""What a training keeps as it goes: scores after every epoch, the best weights, the state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitrail.data.loader import Pictures, Share, evaluation
from vitrail.data.manifest import TRAIN, VAL, Manifest
from vitrail.models.create import describe
from vitrail.runs.device import bf16_unit
from vitrail.runs.folder import Run
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer
from vitrail.runs.recipe import Recipe
from vitrail.tasks.result import Evaluation, Kept, kept_by
from vitrail.training.begin import Start
from vitrail.training.budget import Budget
from vitrail.training.listeners import Listener, note
from vitrail.training.live import Live
from vitrail.training.loop import DivergedError, Event, Session, evaluate, snapshot, way_out
from vitrail.training.setup import pictures_to_train_on
from vitrail.training.whole import broken

SAVE_EVERY = 180.0
"""Seconds after which the state is saved in the middle of an epoch."""

SAVING_SHARE = 20
"""So many times longer than it takes to save the state, the training goes on before it is saved again."""


@dataclass(frozen=True)
class Work:
    """What a training works on."""

    run: Run
    recipe: Recipe
    manifest: Manifest
    start: Start
    listeners: Sequence[Listener]
    cost: float = 0.0  # seconds of a step, measured before the first one
    spent: float = 0.0  # seconds that computing the first head took

    def pictures(self, split: str) -> Pictures:
        """Return the pictures of one split, augmented where they train."""
        task, preprocess = self.start.task, self.start.preprocess
        if split == TRAIN:
            return pictures_to_train_on(self.recipe, self.manifest, task, preprocess)
        truths = task.deployed_task(self.recipe.task.name)[1]
        return Pictures(self.manifest.rows(split), self.manifest.root, preprocess, truths)

    def tell(self, event: Event) -> None:
        """Let everybody hear an event."""
        for listener in self.listeners:
            listener(event)


def conditions(accelerator: Any) -> dict[str, Any]:
    """Return what must be the same for a resumed run to be equal bit by bit."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bf16_unit(accelerator.device),
    }


class Keeper:
    """Evaluates after every epoch, keeps the best weights and the state to resume from, writes the history."""

    def __init__(self, work: Work, session: Session, counters: dict[str, Any]) -> None:
        self.work, self.session = work, session
        self.best: list[float] = counters.get("best", [])
        self.best_epoch: float = counters.get("best_epoch", 0.0)
        self.before: float = counters.get("elapsed", 0.0)
        self.began = time.monotonic() - work.spent
        self.validation = work.pictures(VAL)
        self.live = Live(work.run, self.validation)
        self.saved_step: int | None = counters.get("step")
        self.saved_at, self.saving = time.monotonic(), 0.0
        self.budget = self._budget(counters)

    def _budget(self, counters: dict[str, Any]) -> Budget | None:
        """Return the time of a run by `--time`; one that was lengthened by epochs has none."""
        session, seconds = self.session, self.work.recipe.training.seconds
        if seconds is None or session.schedule.start:
            return None
        cost = session.seconds / session.step if session.step else self.work.cost
        share = len(self.validation) / session.order.batch
        budget = Budget.guessed(seconds, session.order.steps, cost, share)
        budget.fixed = counters.get("fixed", False)
        if not budget.fixed:
            total = session.step + max(1, budget.more(self.before))
            session.schedule = replace(session.schedule, total=total)
        return budget

    def elapsed(self) -> float:
        """Seconds since the run began, without the pauses between resumes."""
        return self.before + time.monotonic() - self.began

    def left(self) -> float | None:
        """Seconds of `--time` that are left; None where the run has no such limit."""
        return None if self.budget is None else self.budget.seconds - self.elapsed()

    def patience_ran_out(self) -> bool:
        """Tell whether too many epochs went by without a better score."""
        patience = self.work.recipe.training.patience
        if patience is None or not self.best:
            return False
        session = self.session
        anew = math.ceil(session.schedule.start / session.order.steps)  # the epoch where more were asked for
        return session.epoch - max(self.best_epoch, anew) >= patience

    def hear(self, event: Event) -> None:
        """Act on an event of the loop, then let the listeners hear it."""
        if event.kind == "step" and self.budget:
            self._plan(self.budget, event.values["seconds"])
        self._log(event)
        self.work.tell(event)
        if event.kind == "epoch":
            self._epoch(event)
        elif event.kind == "step" and self._save_is_due():
            self.save()

    def _save_is_due(self) -> bool:
        pause = max(SAVE_EVERY, SAVING_SHARE * self.saving)
        return self.session.accelerator.is_main_process and time.monotonic() - self.saved_at >= pause

    def kept(self) -> str:
        """Say which step the files of the run are of."""
        if self.saved_step is None:
            return f"nothing of {self.work.run.folder} was saved before"
        return f"{self.work.run.folder} stays as it was at step {self.saved_step}"

    def _log(self, event: Event) -> None:
        if self.session.accelerator.is_main_process:
            self.work.run.log(event.kind, {"step": event.step, **event.values})

    def _plan(self, budget: Budget, took: float) -> None:
        """Decide how many steps fit into the time: once after a few of them, and again where it grows late."""
        session = self.session
        took, elapsed = self._agreed(took, self.elapsed())
        budget.costs.append(took)
        if not budget.due(session.step, session.schedule.total, elapsed):
            return
        if not budget.fixed and budget.can_score:
            self._timed_scores()
            elapsed = self._agreed(self.elapsed())[0]
        total = session.step + budget.more(elapsed)
        session.schedule = replace(session.schedule, total=total)
        budget.fixed = True
        if session.accelerator.is_main_process:
            self.save()
        planned = Event("planned", session.step, {"total": total, "epochs": total / session.order.steps})
        self._log(planned)
        self.work.tell(planned)

    def _agreed(self, *values: float) -> list[float]:
        """Return the mean of each value over all processes, so that they decide alike."""
        accelerator = self.session.accelerator
        if accelerator.num_processes == 1:
            return list(values)
        mine = torch.tensor(values, device=accelerator.device)
        return [float(one) for one in accelerator.reduce(mine, reduction="mean")]

    def _epoch(self, event: Event) -> None:
        accelerator = self.session.accelerator
        scores, main = self._timed_scores()
        if not math.isfinite(scores.get("loss", 0.0)):
            raise self._diverged(f"the validation loss is {scores['loss']}")
        standing = [main.sign * scores[main.name], -scores.get("loss", 0.0)]
        better = not self.best or standing > self.best
        if better:
            self.best, self.best_epoch = standing, self.session.epoch
        if accelerator.is_main_process:
            self._refuse_broken()
            if better:
                self._keep_model()
            self._keep_state()
            note(self.work.listeners, self.live.draw(self.session))
        best = main.sign * self.best[0]
        told = {**event.values, **scores, "main": main.name, "best": best, "better": better}
        told["seconds"] = round(self.elapsed(), 2)
        self._log(Event("score", event.step, told))
        self.work.tell(Event("score", event.step, {**told, "unit": main.unit}))

    def _timed_scores(self) -> tuple[dict[str, float], Kept]:
        began = time.monotonic()
        evaluation = self._evaluation()
        scores = evaluation.scores()
        if self.budget:
            self.budget.scoring = self._agreed(time.monotonic() - began)[0]
        return scores, kept_by(evaluation)

    def _evaluation(self) -> Evaluation:
        accelerator = self.session.accelerator
        share = Share(accelerator.process_index, accelerator.num_processes)
        batch = max(64, -(-self.session.order.batch // self.session.pieces))
        rows = {row.id: row for row in self.validation.rows}
        return evaluate(self.session, evaluation(self.validation, batch, share), rows)

    def _keep_model(self) -> None:
        kept = replace(self.work.start, network=self.session.evaluated())
        write_best(self.work.run, self.work.recipe, kept)

    def save(self) -> None:
        """Save the state to resume from; raises a DivergedError where it would be of no use."""
        self._refuse_broken()
        self._keep_state()

    def _refuse_broken(self) -> None:
        for network in dict.fromkeys((self.session.bare, self.session.evaluated())):
            if found := broken(replace(self.work.start, network=network)):
                raise self._diverged(found)

    def _diverged(self, found: str) -> DivergedError:
        what = f"The training diverged: after step {self.session.step} {found}"
        return DivergedError(what, way_out(self.session))

    def _keep_state(self) -> None:
        began = time.monotonic()
        tensors, counters = snapshot(self.session)
        counters |= {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "elapsed": self.elapsed(),
            "fixed": self.budget is not None and self.budget.fixed,
            "root": str(self.work.manifest.root.resolve()),
            "conditions": conditions(self.session.accelerator),
            "start": self.work.start.to_dict(),
        }
        self.work.run.save_state(tensors, counters)
        self.saved_step, self.saved_at = self.session.step, time.monotonic()
        self.saving = self.saved_at - began


def write_best(run: Run, recipe: Recipe, start: Start) -> None:
    """Write model.safetensors: weights, and the header with architecture, task, preprocessing and proof.

    A DivergedError refuses a network whose weights or answers are not finite; what stood there stays.
    """
    if found := broken(start):
        raise DivergedError(f"No model was written: {found}", "Try a lower learning rate (--lr).")
    task = start.task
    name, kept = task.deployed_task(recipe.task.name)
    header = Header(
        name=recipe.model.name,
        encoder=describe(start.network.encoder),
        task={
            "name": name,
            "labels": list(kept.labels),
            "truth": kept.truth.to_dict(),
            "settings": kept.settings.model_dump(),
        },
        preprocess=start.preprocess.to_dict(),
        weights=start.origin,
        licence=start.licence,
        proof=answer(start.network, task, start.preprocess),
    )
    write_model(run.model_path, start.network, header)
