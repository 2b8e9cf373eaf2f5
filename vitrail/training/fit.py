"""Wires a run: data, plan, loop, listeners, evaluation, report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vitrail.core.catalog import WRAPPERS
from vitrail.core.environment import runs_dir
from vitrail.core.files import refuse_unwritable_folder
from vitrail.core.malloc import holding_memory
from vitrail.core.seeds import of_64_bits
from vitrail.core.text import command, quoted
from vitrail.data.loader import ImageDataset, Share, processes, training
from vitrail.data.manifest import TRAIN, Manifest
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.split import can_be_trained
from vitrail.infer.bf16_check import keep_in_float32
from vitrail.models.factory import count_params
from vitrail.reports.run_report import write_report
from vitrail.runs.image_changes import look_event
from vitrail.runs.network import build_task
from vitrail.runs.recipe import Recipe, layered
from vitrail.runs.run import ReportError, Run, create_run, elsewhere, open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.batch_size_finder import checked_again, measure, summary_line, with_measured_settings
from vitrail.training.checkpointing import conditions
from vitrail.training.draft import draft, init_head_from_probe
from vitrail.training.initialization import build_from_recipe, rebuild_from_state
from vitrail.training.loop import DivergedError, Event, Session, deterministic, restore, steps
from vitrail.training.monitor import Monitor
from vitrail.training.optim import Schedule
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import plan
from vitrail.training.resumption import Place, resumed_manifest
from vitrail.training.run_context import RunContext
from vitrail.training.session import (
    accelerator_for,
    first_batch,
    open_session,
    order_of,
    training_images,
)
from vitrail.training.signals import stopping
from vitrail.training.task_choice import named_task
from vitrail.training.validate_options import validate


class Checked(NamedTuple):
    """Images that were checked: their manifest with its splits, what was found, and when the first was looked at."""

    manifest: Manifest
    found: Mapping[str, Any]
    looked: float


class Trained(NamedTuple):
    """A training that has ended, and whether it came to its end."""

    context: RunContext
    accelerator: Any
    seconds: float
    finished: bool

    def report(self) -> Run:
        """Score the run on its test images and write its report; return the run.

        Raises:
            ReportError: the run is trained and kept, but its report could not be made.
        """
        failed = None
        run = self.context.run
        if self.accelerator.is_main_process and run.model_path.is_file():
            # A run stopped in its first epoch has no model to score yet.
            failed = _report(self.context, self.seconds, self.finished)
        self.accelerator.wait_for_everyone()  # who comes back finds the report
        if failed:
            raise failed
        return run


_Known = tuple[Run, Recipe, float]
"""The run, its settled recipe, and the seconds of a step."""


def train(
    data: str | Path, options: TrainOptions | None = None, *, listeners: Sequence[Listener] = ()
) -> Run:
    """Check a data set, train a network on it and return its run, with scores on images it never saw.

    `data` is a folder, another source that `vitrail check` understands, or a built-in name ("digits").

    Raises:
        ReportError: the run is trained and kept (the error's `run`), but its report could not be made.
    """
    options = options or TrainOptions()
    validate(options)
    out = Path(options.out) if options.out else runs_dir()
    refuse_unwritable_folder(out.parent if options.out and os.path.exists(out) else out)
    prepared = prepared_for(data, options, listeners)
    note(listeners, prepared.opening())
    planned = plan(str(data), prepared, options)
    note(listeners, list(planned.reasons))
    if planned.full is not None:
        return draft(planned, prepared, options.out, listeners)
    return start(with_class_weights(planned.recipe, prepared.manifest), prepared, options.out, listeners)


def with_class_weights(recipe: Recipe, manifest: Manifest) -> Recipe:
    """Return the recipe with what the truths tell of its task: weights of classes, where asked for, and its own."""
    task = build_task(recipe.task.name, manifest.truth, recipe.task.settings)
    rows = manifest.rows(TRAIN)
    found = dict(task.learn(rows, manifest.root))
    if recipe.training.balance == "loss":
        weights = task.class_weights(rows, manifest.root).tolist()
        found["class_weights"] = [round(weight, 4) for weight in weights]
    if not found:
        return recipe
    settings = layered(recipe.task.settings, {"settings": found} if recipe.task.name in WRAPPERS else found)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"settings": settings})})


def prepared_for(data: str | Path, options: TrainOptions, listeners: Sequence[Listener] = ()) -> Prepared:
    """Check a data set with the splits and the seed of the options."""

    def looked(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    o, task = options, named_task(options)
    return prepare(data, read_as(o), seed=o.seed or 0, val=o.val, test=o.test, task=task, progress=looked)


def read_as(options: TrainOptions) -> LayoutOptions:
    """Return how the data are to be read."""
    given = {field.name: getattr(options, field.name) for field in fields(LayoutOptions)}
    return LayoutOptions(**{key: value for key, value in given.items() if value is not None})


def start(recipe: Recipe, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Make a run folder for a recipe, train in it and report."""
    can_be_trained(prepared.manifest, prepared.targets.strata)
    checked = Checked(prepared.manifest, prepared.found(), prepared.looked)
    return train_checked(recipe, checked, out, listeners).report()


@holding_memory()
def train_checked(
    recipe: Recipe, checked: Checked, out: str | None, listeners: Sequence[Listener] = ()
) -> Trained:
    """Make a run folder for a recipe and train in it; nothing is scored on the test images yet."""
    manifest = checked.manifest
    accelerator = accelerator_for(recipe.training.device)
    torch.manual_seed(of_64_bits(recipe.training.seed))
    begun = build_from_recipe(recipe, manifest.truth)
    began = time.monotonic()
    if recipe.training.tune != "scratch":
        init_head_from_probe(begun, manifest, TRAIN)
    spent = time.monotonic() - began
    if recipe.training.tune == "head":
        begun.network.encoder.requires_grad_(False)
    known = None
    if accelerator.is_main_process:
        pictures = training_images(recipe, manifest, begun.task, begun.preprocess)
        found = measure(recipe, begun.network, begun.task, first_batch(recipe, pictures), accelerator.device)
        recipe = with_measured_settings(recipe, found)
        note(listeners, [summary_line(recipe, found, count_params(begun.network)), *found.check.lines()])
        run = create_run(recipe, out, quoted(sys.argv))
        note(listeners, elsewhere(run, out))
        manifest.write(run.manifest_path)
        run.log("checked", dict(checked.found))
        look = look_event(manifest.root, checked.looked)
        run.log("started", {"time": time.time(), "conditions": conditions(accelerator), **look})
        known = (run, recipe, found.seconds)
    run, recipe, cost = _from_main(accelerator, known)
    return _train(RunContext(run, recipe, manifest, begun, listeners, cost, spent), accelerator, None)


def _from_main(accelerator: Any, known: _Known | None) -> _Known:
    """Let every process know what the first one measured and where it writes."""
    if accelerator.num_processes == 1 and known is not None:
        return known
    from accelerate.utils import broadcast_object_list

    sent: list[_Known] = broadcast_object_list([known])
    return sent[0]


@holding_memory()
def resume(
    folder: str | Path, *, more: int = 0, where: Place = Place(), listeners: Sequence[Listener] = ()
) -> Run:
    """Go on with a run that was stopped or killed, from its last saved state, or for `more` epochs than it had.

    Every image must be the one that the run saw; `where` says where they lie now, and whether others will do.
    """
    run = open_run(folder)
    recipe = run.recipe()
    tensors, counters = run.load_state()
    resumed = resumed_manifest(run, counters["root"], replace(where, epochs=more), listeners)
    manifest = resumed.manifest
    note(listeners, list(resumed.lines))
    accelerator = accelerator_for(recipe.training.device)
    context = RunContext(
        run, recipe, manifest, rebuild_from_state(counters["start"], recipe, manifest.truth), listeners
    )
    if recipe.training.tune == "head":
        context.start.network.encoder.requires_grad_(False)
    now = conditions(accelerator)
    # Runs of older versions do not say what rounded them.
    then = {"bf16": now["bf16"], **counters["conditions"]}
    changed = [key for key, value in now.items() if then.get(key) != value]
    exact = not changed and not resumed.accepted
    if accelerator.is_main_process:
        if resumed.accepted:
            manifest.write(run.manifest_path)
        if where.source:  # whoever scores or explains this run finds its images there from now on
            run.save_state(tensors, counters | {"root": str(manifest.root)})
        about = {"time": time.time(), "step": counters["step"], "exact": exact, "changed": changed}
        run.log("resumed", {**about, **resumed.event})
    if changed:
        differs = ", ".join(changed)
        line = f"Resumed under other conditions ({differs}): the run goes on, but not equal bit by bit."
        note(listeners, [line])
    if changed or "bf16" not in counters["conditions"]:
        recipe, lines = checked_again(recipe, context.start.network.to(accelerator.device))
        context = replace(context, recipe=recipe)
        note(listeners, lines)
    return _train(context, accelerator, (tensors, counters), more).report()


def _train(context: RunContext, accelerator: Any, saved: tuple[Any, Any] | None, more: int = 0) -> Trained:
    pictures = context.pictures(TRAIN)
    order = order_of(context.recipe, pictures)
    keep_in_float32(context.start.network.encoder, context.recipe.training.float32)
    session = open_session(context.recipe, context.start.network, context.start.task, order, accelerator)
    if saved:
        restore(session, *saved)
    if more:
        session.schedule = extend_schedule(session, more)
        context.run.log("lengthened", {"step": session.step, "epochs": more})
    monitor = Monitor(context, session, (saved[1] if saved else {}))
    context.publish(
        Event("begun", session.step, {"total": session.schedule.total, "seconds": monitor.time.left()})
    )
    with deterministic(accelerator.device), stopping() as stop:
        try:
            _steps(session, monitor, pictures, stop)
        except DivergedError as error:
            raise error.keeping(monitor.checkpointer.describe()) from None
    accelerator.wait_for_everyone()
    finished = session.step >= session.schedule.total or monitor.validation.patience_ran_out()
    if accelerator.is_main_process:
        ended = {"time": time.time(), "step": session.step, "total": session.schedule.total}
        context.run.log("finished" if finished else "stopped", ended)
    return Trained(context, accelerator, monitor.time.elapsed(), finished)


def _report(context: RunContext, seconds: float, finished: bool) -> ReportError | None:
    """Write the report of a run, or return why there is none: no report is worth the training it is about."""
    try:
        report = write_report(context.run, context.manifest, seconds=seconds, finished=finished)
        if left_out := report.get("left_out"):
            note(context.listeners, [f"{left_out}: left out of the scores."])
    except Exception as error:  # scores, drawings and pages fail in many ways
        context.run.drop_stale_report()
        folder = context.run.folder
        way = f"Make it again: {command('train', '--resume', folder)}. The scores alone: {command('eval', folder)}"
        failed = ReportError(context.run, error, way)
        failed.__cause__ = error
        return failed
    return None


def _steps(session: Session, monitor: Monitor, pictures: ImageDataset, stop: Callable[[], bool]) -> None:
    """Train to the end of the schedule, or until it is to stop; the state of the last step is saved."""
    if session.step >= session.schedule.total or monitor.validation.patience_ran_out():
        return
    share = Share(session.accelerator.process_index, session.accelerator.num_processes)
    workers = processes(monitor.context.recipe.training.workers)
    batches = training(pictures, session.order, share, session.step, sys.maxsize, workers)
    for event in steps(session, batches, lambda: stop() or monitor.validation.patience_ran_out()):
        monitor.on_event(event)
    if session.accelerator.is_main_process and monitor.checkpointer.saved_step != session.step:
        monitor.save()


def extend_schedule(session: Session, epochs: int) -> Schedule:
    """Return a schedule of so many more epochs, warmed up anew to a third of the highest rate."""
    old = session.schedule
    total = session.step + epochs * session.order.steps
    return Schedule(old.peak / 3, min(old.warmup, session.order.steps), total, start=session.step)
