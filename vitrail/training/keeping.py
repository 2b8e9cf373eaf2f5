"""What a training keeps as it goes: scores after every epoch, the best weights, the state to resume from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from vitrail.data.loader import Pictures, Share, evaluation
from vitrail.data.manifest import TRAIN, VAL, Manifest
from vitrail.models.create import describe
from vitrail.runs.folder import Run
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer
from vitrail.runs.recipe import Recipe
from vitrail.training.begin import Start
from vitrail.training.listeners import Listener
from vitrail.training.loop import Event, Session, evaluate, snapshot
from vitrail.training.setup import UNKNOWN_TOTAL, pictures_to_train_on

CALIBRATION_STEPS = 20
"""After so many steps a run with a time limit fixes how many steps it will take."""


@dataclass(frozen=True)
class Work:
    """What a training works on."""

    run: Run
    recipe: Recipe
    manifest: Manifest
    start: Start
    listeners: Sequence[Listener]

    def pictures(self, split: str) -> Pictures:
        """Return the pictures of one split, augmented where they train."""
        task, preprocess = self.start.task, self.start.preprocess
        if split == TRAIN:
            return pictures_to_train_on(self.recipe, self.manifest, task, preprocess)
        return Pictures(self.manifest.rows(split), self.manifest.root, preprocess, task.target)

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
    }


class Keeper:
    """Evaluates after every epoch, keeps the best weights and the state to resume from, writes the history."""

    def __init__(self, work: Work, session: Session, counters: dict[str, Any]) -> None:
        self.work, self.session = work, session
        self.best: list[float] = counters.get("best", [])
        self.best_epoch: float = counters.get("best_epoch", 0.0)
        self.before: float = counters.get("elapsed", 0.0)
        self.began = time.monotonic()
        self.validation = work.pictures(VAL)
        self.fixed = work.recipe.training.seconds is None or session.schedule.total < UNKNOWN_TOTAL
        self.last_steps: deque[float] = deque(maxlen=CALIBRATION_STEPS // 2)

    def elapsed(self) -> float:
        """Seconds since the run began, without the pauses between resumes."""
        return self.before + time.monotonic() - self.began

    def patience_ran_out(self) -> bool:
        """Tell whether too many epochs went by without a better score."""
        patience = self.work.recipe.training.patience
        return patience is not None and bool(self.best) and self.session.epoch - self.best_epoch >= patience

    def hear(self, event: Event) -> None:
        """Act on an event of the loop, then let the listeners hear it."""
        if event.kind == "step" and not self.fixed:
            self.last_steps.append(event.values["seconds"])
            if self.session.step >= CALIBRATION_STEPS:
                self._fix_steps()
        self._log(event)
        self.work.tell(event)
        if event.kind == "epoch":
            self._epoch(event)

    def _log(self, event: Event) -> None:
        if self.session.accelerator.is_main_process:
            self.work.run.log(event.kind, {"step": event.step, **event.values})

    def _fix_steps(self) -> None:
        """Decide how many steps fit into the time that is left, counting one evaluation an epoch, and the end."""
        budget = float(self.work.recipe.training.seconds or 0)
        step = median(self.last_steps)  # the first steps of all also pay for set-up
        began = time.monotonic()
        self._scores()
        if self.session.accelerator.is_main_process:
            self._keep_state()
        looked = time.monotonic() - began
        left = budget * 0.97 - self.elapsed() - looked
        more = max(1, int(left / (step + looked / self.session.order.steps)))
        total = self._agreed(self.session.step + more)
        self.session.schedule = replace(self.session.schedule, total=total)
        self.fixed = True
        planned = Event(
            "planned", self.session.step, {"total": total, "epochs": total / self.session.order.steps}
        )
        self._log(planned)
        self.work.tell(planned)

    def _agreed(self, total: int) -> int:
        accelerator = self.session.accelerator
        return int(
            accelerator.reduce(torch.tensor(float(total), device=accelerator.device), reduction="mean").item()
        )

    def _epoch(self, event: Event) -> None:
        accelerator = self.session.accelerator
        scores = self._scores()
        main = self.work.start.task.metrics().main
        standing = [scores[main], -scores.get("loss", 0.0)]
        better = not self.best or standing > self.best
        if better:
            self.best, self.best_epoch = standing, self.session.epoch
        if accelerator.is_main_process:
            if better:
                self._keep_model()
            self._keep_state()
        told = {**event.values, **scores, "main": main, "best": self.best[0], "better": better}
        told["seconds"] = round(self.elapsed(), 2)
        self._log(Event("score", event.step, told))
        self.work.tell(Event("score", event.step, told))

    def _scores(self) -> dict[str, float]:
        accelerator = self.session.accelerator
        share = Share(accelerator.process_index, accelerator.num_processes)
        batch = max(64, -(-self.session.order.batch // self.session.pieces))
        return evaluate(self.session, evaluation(self.validation, batch, share))

    def _keep_model(self) -> None:
        kept = replace(self.work.start, network=self.session.evaluated())
        write_best(self.work.run, self.work.recipe, kept)

    def _keep_state(self) -> None:
        tensors, counters = snapshot(self.session)
        counters |= {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "elapsed": self.elapsed(),
            "root": str(self.work.manifest.root.resolve()),
            "conditions": conditions(self.session.accelerator),
            "start": self.work.start.to_dict(),
        }
        self.work.run.save_state(tensors, counters)


def write_best(run: Run, recipe: Recipe, start: Start) -> None:
    """Write model.safetensors: weights, and the header with architecture, task, preprocessing and proof."""
    task = start.task
    name, kept = task.kept(recipe.task.name)
    header = Header(
        name=recipe.model.name,
        encoder=describe(start.network.encoder),
        task={"name": name, "labels": list(kept.labels), "settings": kept.settings.model_dump()},
        preprocess=start.preprocess.to_dict(),
        weights=start.origin,
        licence=start.licence,
        proof=answer(start.network, task, start.preprocess),
    )
    write_model(run.model_path, start.network, header)
