"""Wires a run: data, plan, loop, listeners, evaluation, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vitrail.core.errors import RunError
from vitrail.data.balance import class_weights, positive_weights
from vitrail.data.loader import Share, processes, training
from vitrail.data.manifest import TRAIN, VAL, Manifest
from vitrail.data.prepare import Prepared, prepare
from vitrail.layers.head import DistilledHead
from vitrail.models.create import count_params
from vitrail.reports.write import write_report
from vitrail.runs.folder import Run, create_run, open_run
from vitrail.runs.options import TrainOptions
from vitrail.runs.recipe import Recipe, merge
from vitrail.training.asked import refuse
from vitrail.training.begin import again, begin
from vitrail.training.draft import draft, head_for
from vitrail.training.keeping import Keeper, Work, conditions
from vitrail.training.listeners import Listener
from vitrail.training.loop import Event, Session, deterministic, restore, steps
from vitrail.training.optim import Schedule
from vitrail.training.plan import plan
from vitrail.training.setup import (
    accelerator_for,
    first_batch,
    measure,
    open_session,
    order_of,
    pictures_to_train_on,
    said,
    settled,
)
from vitrail.training.stopping import stopping
from vitrail.training.taught import DISTILL


def train(
    data: str | Path, options: TrainOptions | None = None, *, listeners: Sequence[Listener] = ()
) -> Run:
    """Check a data set, train a network on it and return its run, with scores on pictures it never saw.

    `data` is a folder, another source that `vitrail check` understands, or a built-in name ("digits").
    """
    options = options or TrainOptions()
    refuse(options)
    prepared = prepared_for(data, options, listeners)
    _note(listeners, [prepared.summary()])
    planned = plan(str(data), prepared, options)
    _note(listeners, list(planned.reasons))
    if planned.full is not None:
        return draft(planned, prepared, options.out, listeners)
    return start(weighed(planned.recipe, prepared.manifest), prepared, options.out, listeners)


def weighed(recipe: Recipe, manifest: Manifest) -> Recipe:
    """Return the recipe with the weight of each class in the loss, where that was asked for."""
    if recipe.training.balance != "loss":
        return recipe
    weigh = positive_weights if manifest.multi else class_weights
    weights = weigh(manifest.rows(TRAIN), manifest.classes).tolist()
    found = {"class_weights": [round(weight, 4) for weight in weights]}
    settings = merge(recipe.task.settings, {"settings": found} if recipe.task.name == DISTILL else found)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"settings": settings})})


def prepared_for(data: str | Path, options: TrainOptions, listeners: Sequence[Listener] = ()) -> Prepared:
    """Check a data set with the splits and the seed of the options."""

    def looked(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    return prepare(data, seed=options.seed or 0, progress=looked, **_splits(options))


def _note(listeners: Sequence[Listener], lines: list[str]) -> None:
    for listener in listeners:
        listener(Event("note", 0, {"lines": lines}))


def _splits(options: TrainOptions) -> dict[str, Any]:
    given = {"layout": options.layout, "val": options.val, "test": options.test}
    return {key: value for key, value in given.items() if value is not None}


def start(recipe: Recipe, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Make a run folder for a recipe and train in it."""
    manifest = prepared.manifest
    accelerator = accelerator_for(recipe.training.device)
    torch.manual_seed(recipe.training.seed)
    begun = begin(recipe, manifest.classes)
    # Two heads on tokens of their own are no draft's head: they start fresh.
    if recipe.training.tune != "scratch" and not isinstance(begun.network.head, DistilledHead):
        head_for(begun, manifest, TRAIN)
    if recipe.training.tune == "head":
        begun.network.encoder.requires_grad_(False)
    run = None
    if accelerator.is_main_process:
        pictures = pictures_to_train_on(recipe, manifest, begun.task, begun.preprocess)
        found = measure(recipe, begun.network, begun.task, first_batch(recipe, pictures), accelerator.device)
        recipe = settled(recipe, found)
        _note(listeners, [said(recipe, found, count_params(begun.network))])
        run = create_run(recipe, out, " ".join(sys.argv))
        manifest.write(run.manifest_path)
        run.log("checked", prepared.found())
        run.log("started", {"time": time.time(), "conditions": conditions(accelerator)})
    recipe, folder = _from_main(accelerator, recipe, run)
    return _train(Work(folder, recipe, manifest, begun, listeners), accelerator, None)


def _from_main(accelerator: Any, recipe: Recipe, run: Run | None) -> tuple[Recipe, Run]:
    """Let every process know what the first one measured and where it writes."""
    if accelerator.num_processes == 1 and run is not None:
        return recipe, run
    from accelerate.utils import broadcast_object_list

    sent = broadcast_object_list([recipe if run else None, run.folder if run else None])
    return sent[0], Run(sent[1])


def resume(folder: str | Path, *, more: int = 0, listeners: Sequence[Listener] = ()) -> Run:
    """Go on with a run that was stopped or killed, from its last saved state, or for `more` epochs than it had."""
    run = open_run(folder)
    recipe = run.recipe()
    tensors, counters = run.load_state()
    manifest = run.manifest(Path(counters["root"]))
    accelerator = accelerator_for(recipe.training.device)
    work = Work(run, recipe, manifest, again(counters["start"], recipe, manifest.classes), listeners)
    if recipe.training.tune == "head":
        work.start.network.encoder.requires_grad_(False)
    now = conditions(accelerator)
    changed = [key for key, value in now.items() if counters["conditions"].get(key) != value]
    if accelerator.is_main_process:
        run.log(
            "resumed",
            {"time": time.time(), "step": counters["step"], "exact": not changed, "changed": changed},
        )
    if changed:
        differs = ", ".join(changed)
        line = f"Resumed under other conditions ({differs}): the run goes on, but not equal bit by bit."
        _note(listeners, [line])
    return _train(work, accelerator, (tensors, counters), more)


def _train(work: Work, accelerator: Any, saved: tuple[Any, Any] | None, more: int = 0) -> Run:
    pictures = work.pictures(TRAIN)
    if not pictures.rows or not work.manifest.rows(VAL):
        raise RunError("There is no picture to train on or none to validate on. Look at: vitrail check.")
    order = order_of(work.recipe, pictures)
    session = open_session(work.recipe, work.start.network, work.start.task, order, accelerator)
    if saved:
        restore(session, *saved)
    if more:
        session.schedule = lengthened(session, more)
        work.run.log("lengthened", {"step": session.step, "epochs": more})
    keeper = Keeper(work, session, (saved[1] if saved else {}))
    work.tell(Event("begun", session.step, {"total": session.schedule.total}))
    with deterministic(accelerator.device), stopping() as stop:
        if session.step < session.schedule.total:
            share = Share(accelerator.process_index, accelerator.num_processes)
            workers = processes(work.recipe.training.workers)
            batches = training(pictures, order, share, session.step, sys.maxsize, workers)
            for event in steps(session, batches, lambda: stop() or keeper.patience_ran_out()):
                keeper.hear(event)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finished = session.step >= session.schedule.total or keeper.patience_ran_out()
        work.run.log("finished" if finished else "stopped", {"time": time.time(), "step": session.step})
        write_report(work.run, work.manifest, seconds=keeper.elapsed(), finished=finished)
    return work.run


def lengthened(session: Session, epochs: int) -> Schedule:
    """Return a schedule of so many more epochs, warmed up anew to a third of the highest rate."""
    old = session.schedule
    total = session.step + epochs * session.order.steps
    return Schedule(old.peak / 3, min(old.warmup, session.order.steps), total, start=session.step)
