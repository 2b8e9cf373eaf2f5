"""Connect the parts of a run: data, plan, training loop, listeners, evaluation and report."""

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
from vitrail.runs.passport import hash_of
from vitrail.runs.recipe import Recipe, layered
from vitrail.runs.run import ReportError, Run, create_run, elsewhere, open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.adapted_weights import refuse_guess
from vitrail.training.alignment import align, can_align
from vitrail.training.batch_size_finder import (
    checked_again,
    measure,
    repeatable,
    summary_line,
    with_measured_settings,
)
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
from vitrail.training.signals import stop_on_interrupt
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
"""The run, its final recipe, and the seconds of a step."""


def train(
    data: str | Path, options: TrainOptions | None = None, *, listeners: Sequence[Listener] = ()
) -> Run:
    """Check a data set, train a network on it and return the run, with scores on held-out images.

    `data` is a folder, another source that `vitrail check` understands, or a built-in name ("digits").

    Raises:
        ReportError: the run is trained and kept (`error.run`), but its report could not be made.
    """
    options = options or TrainOptions()
    validate(options)
    out = Path(options.out) if options.out else runs_dir()
    refuse_unwritable_folder(out.parent if options.out and os.path.exists(out) else out)
    prepared = prepared_for(data, options, listeners)
    note(listeners, prepared.opening())
    refuse_guess(prepared, options)
    planned = plan(str(data), prepared, options)
    note(listeners, list(planned.reasons))
    if planned.full is not None:
        return draft(planned, prepared, options.out, listeners)
    if can_align(planned.recipe):
        return align(planned.recipe, prepared, options.out, listeners)
    recipe = with_class_weights(planned.recipe, prepared.manifest)
    note(listeners, _learned(planned.recipe, recipe))
    note(listeners, unfit_settings(recipe, prepared.manifest))
    return start(recipe, prepared, options.out, listeners)


def with_class_weights(recipe: Recipe, manifest: Manifest) -> Recipe:
    """Return the recipe with the settings that the task computes from the labels, and class weights if asked for."""
    task = build_task(recipe.task.name, manifest.truth, recipe.task.settings)
    rows = manifest.rows(TRAIN)
    learned = dict(task.learn(rows, manifest.root))
    if recipe.training.balance == "loss":
        weights = task.class_weights(rows, manifest.root).tolist()
        learned["class_weights"] = [round(weight, 4) for weight in weights]
    if not learned:
        return recipe
    if recipe.task.name in WRAPPERS:
        learned = {"settings": learned}
    settings = layered(recipe.task.settings, learned)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"settings": settings})})


def unfit_settings(recipe: Recipe, manifest: Manifest) -> list[str]:
    """Return sentences about settings of a complete recipe that do not fit the training images."""
    task = build_task(recipe.task.name, manifest.truth, recipe.task.settings)
    return list(task.unfit(manifest.rows(TRAIN)))


def _learned(before: Recipe, after: Recipe) -> list[str]:
    """Return a line with the numbers that the task chose from the training images, if it chose any."""
    stated, settings = (recipe.task.settings for recipe in (before, after))
    numbers = {
        name: value
        for name, value in settings.items()
        if isinstance(value, int | float) and stated.get(name) is None
    }
    chosen = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
    return [f"chosen from the training images: {chosen}"] if chosen else []


def prepared_for(data: str | Path, options: TrainOptions, listeners: Sequence[Listener] = ()) -> Prepared:
    """Check a data set with the splits and the seed of the options."""

    def looked(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    o, task = options, named_task(options)
    return prepare(data, read_as(o), seed=o.seed or 0, val=o.val, test=o.test, task=task, progress=looked)


def read_as(options: TrainOptions) -> LayoutOptions:
    """Return the options for reading the data."""
    values = {field.name: getattr(options, field.name) for field in fields(LayoutOptions)}
    return LayoutOptions(**{key: value for key, value in values.items() if value is not None})


def start(recipe: Recipe, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Create a run folder for a recipe, train in it and report."""
    can_be_trained(prepared.manifest, prepared.targets.strata)
    checked = Checked(prepared.manifest, prepared.found(), prepared.looked)
    return train_checked(recipe, checked, out, listeners).report()


@holding_memory()
def train_checked(
    recipe: Recipe, checked: Checked, out: str | None, listeners: Sequence[Listener] = ()
) -> Trained:
    """Create a run folder for a recipe and train in it; nothing is scored on the test images yet."""
    manifest = checked.manifest
    accelerator = accelerator_for(recipe.training.device)
    torch.manual_seed(of_64_bits(recipe.training.seed))
    initial = build_from_recipe(recipe, manifest.truth, manifest.rows(TRAIN))
    initial_hash = hash_of(initial.network.encoder.state_dict())
    began = time.monotonic()
    if recipe.training.tune != "scratch":
        init_head_from_probe(initial, manifest, TRAIN)
    spent = time.monotonic() - began
    if recipe.training.tune == "head":
        initial.network.encoder.requires_grad_(False)
    known = None
    if accelerator.is_main_process:
        images = training_images(recipe, manifest, initial.task, initial.preprocess)
        step = measure(recipe, initial.network, initial.task, first_batch(recipe, images), accelerator.device)
        recipe = with_measured_settings(recipe, step)
        note(listeners, list(initial.lines))
        note(listeners, [summary_line(recipe, step, count_params(initial.network)), *step.check.lines()])
        note(listeners, repeatable(accelerator.device))
        run = create_run(recipe, out, quoted(sys.argv))
        note(listeners, elsewhere(run, out))
        manifest.write(run.manifest_path)
        run.log("checked", dict(checked.found))
        look = look_event(manifest.root, checked.looked)
        began_as = {"conditions": conditions(accelerator), "weights": initial_hash}
        run.log("started", {"time": time.time(), **began_as, **look})
        known = (run, recipe, step.seconds)
    run, recipe, cost = _from_main(accelerator, known)
    return _train(RunContext(run, recipe, manifest, initial, listeners, cost, spent), accelerator, None)


def _from_main(accelerator: Any, known: _Known | None) -> _Known:
    """Broadcast the run, the recipe and the measured step of the main process to all processes."""
    if accelerator.num_processes == 1 and known is not None:
        return known
    from accelerate.utils import broadcast_object_list

    sent: list[_Known] = broadcast_object_list([known])
    return sent[0]


@holding_memory()
def resume(
    folder: str | Path, *, more: int = 0, where: Place = Place(), listeners: Sequence[Listener] = ()
) -> Run:
    """Continue a run that was stopped or killed from its last saved state, or train it for `more` additional epochs.

    Every image must be the one that the run was trained on. `where` gives their present folder, and whether changed
    images are accepted.
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
    # Runs of older versions do not record the bf16 unit.
    then = {"bf16": now["bf16"], **counters["conditions"]}
    changed = [key for key, value in now.items() if then.get(key) != value]
    exact = not changed and not resumed.accepted
    if accelerator.is_main_process:
        if resumed.accepted:
            manifest.write(run.manifest_path)
        if where.source:  # later commands on this run look for its images there
            run.save_state(tensors, counters | {"root": str(manifest.root)})
        about = {"time": time.time(), "step": counters["step"], "exact": exact, "changed": changed}
        run.log("resumed", {**about, **resumed.event})
    if changed:
        differs = ", ".join(changed)
        line = f"Resumed under other conditions ({differs}): the run continues, but not equal bit by bit."
        note(listeners, [line])
    if changed or "bf16" not in counters["conditions"]:
        recipe, lines = checked_again(recipe, context.start.network.to(accelerator.device))
        context = replace(context, recipe=recipe)
        note(listeners, lines)
    return _train(context, accelerator, (tensors, counters), more).report()


def _train(context: RunContext, accelerator: Any, saved: tuple[Any, Any] | None, more: int = 0) -> Trained:
    images = context.pictures(TRAIN)
    order = order_of(context.recipe, images)
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
    with deterministic(accelerator.device), stop_on_interrupt() as stop:
        if not saved:
            monitor.validation.rehearse()
        try:
            _steps(session, monitor, images, stop)
        except DivergedError as error:
            raise error.keeping(monitor.checkpointer.describe()) from None
    accelerator.wait_for_everyone()
    finished = session.step >= session.schedule.total or monitor.validation.patience_ran_out()
    if accelerator.is_main_process:
        ended = {"time": time.time(), "step": session.step, "total": session.schedule.total}
        context.run.log("finished" if finished else "stopped", ended)
    return Trained(context, accelerator, monitor.time.elapsed(), finished)


def _report(context: RunContext, seconds: float, finished: bool) -> ReportError | None:
    """Write the report of a run, or return the error: a failed report must not lose the trained model."""
    try:
        report = write_report(context.run, context.manifest, seconds=seconds, finished=finished)
        if left_out := report.get("left_out"):
            note(context.listeners, [f"{left_out}: left out of the scores."])
    except Exception as error:  # scores, drawings and pages fail in many ways
        context.run.drop_stale_report()
        folder = context.run.folder
        hint = f"Make it again: {command('train', '--resume', folder)}. Only the scores: {command('eval', folder)}"
        failed = ReportError(context.run, error, hint)
        failed.__cause__ = error
        return failed
    return None


def _steps(session: Session, monitor: Monitor, images: ImageDataset, stop: Callable[[], bool]) -> None:
    """Train to the end of the schedule, or until `stop` or the patience ends it. Save the state of the last step."""
    if session.step >= session.schedule.total or monitor.validation.patience_ran_out():
        return
    share = Share(session.accelerator.process_index, session.accelerator.num_processes)
    workers = processes(monitor.context.recipe.training.workers)
    batches = training(images, session.order, share, session.step, sys.maxsize, workers)
    for event in steps(session, batches, lambda: stop() or monitor.validation.patience_ran_out()):
        monitor.on_event(event)
    if session.accelerator.is_main_process and monitor.checkpointer.saved_step != session.step:
        monitor.save()


def extend_schedule(session: Session, epochs: int) -> Schedule:
    """Return a schedule for additional epochs, with a new warm-up to a third of the highest learning rate."""
    old = session.schedule
    total = session.step + epochs * session.order.steps
    return Schedule(old.peak / 3, min(old.warmup, session.order.steps), total, start=session.step)
