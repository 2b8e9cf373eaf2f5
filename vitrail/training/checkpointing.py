"""What a training writes as it goes: the best model, and the state from which it is resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vitrail.models.factory import describe
from vitrail.runs.device import bf16_unit
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer, find_non_finite
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run
from vitrail.training.initialization import InitialState
from vitrail.training.loop import DivergedError, Session, snapshot, way_out
from vitrail.training.run_context import RunContext

SAVE_EVERY = 180.0
"""Seconds after which the state is saved in the middle of an epoch."""

SAVING_SHARE = 20
"""So many times longer than it takes to save the state, the training goes on before it is saved again."""


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


class Checkpointer:
    """Writes the model and the state of a run, never those of a network that is not finite."""

    def __init__(self, context: RunContext, session: Session, counters: Mapping[str, Any]) -> None:
        self.context, self.session = context, session
        self.saved_step: int | None = counters.get("step")
        self._saved_at, self._saving = time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Tell whether the state is to be saved in the middle of an epoch."""
        pause = max(SAVE_EVERY, SAVING_SHARE * self._saving)
        return self.session.accelerator.is_main_process and time.monotonic() - self._saved_at >= pause

    def describe(self) -> str:
        """Say which step the files of the run are of."""
        folder = self.context.run.folder
        if self.saved_step is None:
            return f"nothing of {folder} was saved before"
        return f"{folder} stays as it was at step {self.saved_step}"

    def save_model(self) -> None:
        """Write the network that is evaluated as the best of the run."""
        kept = replace(self.context.start, network=self.session.evaluated())
        write_best(self.context.run, self.context.recipe, kept)

    def save_state(self, counters: Mapping[str, Any]) -> None:
        """Save the state to resume from, with counters of the parts of the training beside its own."""
        began = time.monotonic()
        tensors, own = snapshot(self.session)
        own |= {
            **counters,
            "root": str(self.context.manifest.root.resolve()),
            "conditions": conditions(self.session.accelerator),
            "start": self.context.start.to_dict(),
        }
        self.context.run.save_state(tensors, own)
        self.saved_step, self._saved_at = self.session.step, time.monotonic()
        self._saving = self._saved_at - began

    def refuse_non_finite(self) -> None:
        """Raise a DivergedError where weights or predictions, of the training or of its average, are not finite."""
        start = self.context.start
        for network in dict.fromkeys((self.session.bare, self.session.evaluated())):
            if found := find_non_finite(network, start.task, start.preprocess):
                raise self.diverged(found)

    def diverged(self, found: str) -> DivergedError:
        """Return the error that a training diverged."""
        what = f"The training diverged: after step {self.session.step} {found}"
        return DivergedError(what, way_out(self.session))


def write_best(run: Run, recipe: Recipe, start: InitialState) -> None:
    """Write model.safetensors: weights, and the header with architecture, task, preprocessing and proof.

    A DivergedError refuses a network whose weights or predictions are not finite; what stood there stays.
    """
    if found := find_non_finite(start.network, start.task, start.preprocess):
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
