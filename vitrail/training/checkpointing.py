"""Write the files of a running training: the best model, and the state for resuming."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vitrail.models.factory import describe
from vitrail.runs.device import bf16_unit
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import stored_of
from vitrail.runs.proof import answer, find_non_finite
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run
from vitrail.training.initialization import InitialState
from vitrail.training.loop import DivergedError, Session, snapshot, way_out
from vitrail.training.run_context import RunContext

SAVE_EVERY = 180.0
"""Smallest time between two saves of the state in the middle of an epoch, in seconds."""

SAVING_SHARE = 20
"""Smallest time between two saves, as a multiple of the time that one save takes."""


def conditions(accelerator: Any) -> dict[str, Any]:
    """Return the conditions under which a resumed run is equal bit by bit."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bf16_unit(accelerator.device),
    }


class Checkpointer:
    """Writes the model and the state of a run, but never those of a network with values that are not finite."""

    def __init__(self, context: RunContext, session: Session, counters: Mapping[str, Any]) -> None:
        self.context, self.session = context, session
        self.saved_step: int | None = counters.get("step")
        self._saved_at, self._saving = time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Tell whether the state should be saved now, in the middle of an epoch."""
        pause = max(SAVE_EVERY, SAVING_SHARE * self._saving)
        return self.session.accelerator.is_main_process and time.monotonic() - self._saved_at >= pause

    def describe(self) -> str:
        """Return in words from which step the files of the run are."""
        folder = self.context.run.folder
        if self.saved_step is None:
            return f"nothing was saved in {folder} before"
        return f"{folder} keeps the state of step {self.saved_step}"

    def save_model(self) -> None:
        """Write the evaluated network as the best model of the run."""
        best = replace(self.context.start, network=self.session.evaluated())
        write_best(self.context.run, self.context.recipe, best)

    def save_state(self, counters: Mapping[str, Any]) -> None:
        """Save the state for resuming: the snapshot of the session, and the counters of the other parts."""
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
        """Raise a DivergedError if weights or predictions of the network or of its average are not finite."""
        start = self.context.start
        for network in dict.fromkeys((self.session.bare, self.session.evaluated())):
            if reason := find_non_finite(network, start.task, start.preprocess):
                raise self.diverged(reason)

    def diverged(self, reason: str) -> DivergedError:
        """Return the error for a training that diverged, with this reason."""
        what = f"The training diverged: after step {self.session.step} {reason}"
        return DivergedError(what, way_out(self.session))


def write_best(run: Run, recipe: Recipe, start: InitialState) -> None:
    """Write model.safetensors: weights, and the header with architecture, task, preprocessing and proof.

    Raise a DivergedError if weights or predictions are not finite; an existing file is kept.
    """
    if reason := find_non_finite(start.network, start.task, start.preprocess):
        raise DivergedError(f"No model was written: {reason}", "Try a lower learning rate (--lr).")
    task = start.task
    name, deployed = task.deployed_task(recipe.task.name)
    header = Header(
        name=recipe.model.name,
        encoder=describe(start.network.encoder),
        task={
            "name": name,
            "labels": list(deployed.labels),
            "truth": deployed.truth.to_dict(),
            "settings": deployed.settings.model_dump(),
            **stored_of(deployed),
        },
        preprocess=start.preprocess.to_dict(),
        weights=start.origin,
        licence=start.licence,
        proof=answer(start.network, task, start.preprocess),
    )
    write_model(run.model_path, start.network, header)
