"""Choose the task and its settings: --task overrides a recipe file, and a recipe file overrides the data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from vitrail.core import catalog
from vitrail.core.config import Settings, fault
from vitrail.core.errors import DataError, SettingError, UnknownNameError, UsageError, nearest
from vitrail.data.manifest import Manifest
from vitrail.runs.recipe import is_file, settings_of
from vitrail.runs.task_settings import settings_class
from vitrail.runs.task_wrapping import unwrap
from vitrail.runs.train_options import OF_TASK, TrainOptions, task_settings
from vitrail.tasks.base import Task

REASONS: Mapping[str, str] = MappingProxyType(
    {"classes": "some images have several labels or none, so each label is a yes or a no"}
)
"""Kind of labels → the reason for its task, where the reason is not obvious."""


class TaskChoice(NamedTuple):
    """The name of a task, with the reasons if the data decide."""

    name: str
    reasons: tuple[str, ...] = ()


def choose_task(options: TrainOptions, manifest: Manifest) -> TaskChoice:
    """Return the task to train on a data set.

    Raises:
        DataError: the named task does not fit the labels of the images.
    """
    kind, name = manifest.truth.kind, named_task(options)
    if name is None:
        usual = catalog.DEFAULT_TASKS[kind]
        return TaskChoice(usual, (f"task {usual}: {REASONS[kind]}",) if kind in REASONS else ())
    if kind == "classes" and name == catalog.DEFAULT_TASKS["class"]:
        raise DataError(
            f"Some images have several labels or none, and the task {name} gives each image one. "
            f"Use --task {catalog.DEFAULT_TASKS[kind]}, or give every image one label."
        )
    return TaskChoice(name)


def named_task(options: TrainOptions) -> str | None:
    """Return the task that the user or the user's recipe file names, or None if the data decide."""
    if options.task is not None or options.recipe is None or not is_file(options.recipe):
        return catalog.OLD_TASKS.get(options.task, options.task) if options.task else None
    return unwrap(settings_of(options.recipe).get("task", {})).task.get("name")


def refuse_task(options: TrainOptions) -> None:
    """Raise a SettingError for an unknown task, and for settings that none of the possible tasks has."""
    if catalog.OLD_TASKS.get(options.task or "", options.task) in catalog.WRAPPERS:
        option = "--teacher runs/large" if options.task == catalog.DISTILL else "--elastic"
        raise UsageError(
            f"--task {options.task} is a way to train another task. Name that task, and add {option}."
        )
    name = named_task(options)
    mistakes: dict[str, UsageError] = {}
    for candidate in (name,) if name else dict.fromkeys(catalog.DEFAULT_TASKS.values()):
        _refuse_class(candidate)
        try:
            stated_settings(candidate, options)
        except UsageError as error:
            mistakes[candidate] = error
        else:
            return
    raise _nearest(mistakes, options)


def _nearest(mistakes: Mapping[str, UsageError], options: TrainOptions) -> UsageError:
    """Return the error when no task is named: of the tasks that have such settings, else of all possible tasks."""
    stated = {*task_settings(options.set), *(name for name in OF_TASK if getattr(options, name) is not None)}
    with_settings = [task for task in mistakes if stated <= settings_class(task).model_fields.keys()]
    similar = [task for task, error in mistakes.items() if "Did you mean" in str(error)]
    chosen = with_settings or similar or list(mistakes)
    if len(mistakes) == 1 or (chosen[0] == next(iter(mistakes)) and (with_settings or similar)):
        return mistakes[chosen[0]]
    text = " ".join(dict.fromkeys(str(mistakes[task]) for task in chosen))
    if len(chosen) == 1:
        text += f" Only the task {chosen[0]} has such a setting; the data or --task name the task."
    return UsageError(text)


def _refuse_class(name: str) -> None:
    ours = [task for task in catalog.TASKS if task not in catalog.WRAPPERS]
    if ":" not in name and name not in ours:
        see = f"There are: {', '.join(ours)}, and those of your own, my_module:MyTask."
        raise UnknownNameError("task", name, ours, see)
    task = catalog.load("task", name)
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise SettingError(
            f"The task {name!r} is not a subclass of vitrail.tasks.base.Task. Name one: my_module:MyTask"
        )


def stated_settings(task: str, options: TrainOptions) -> dict[str, Any]:
    """Return the user's settings for this task, from their own options and from --set.

    Raises:
        UsageError: the task has no such setting, or the value is not valid.
    """
    cls = settings_class(task)
    alone = {name: getattr(options, name) for name in OF_TASK if getattr(options, name) is not None}
    listed = task_settings(options.set)
    for name in alone:
        option = f"--{name.replace('_', '-')}"
        if name not in cls.model_fields:
            raise UsageError(
                f"{option} is no setting of the task {task}. {_settings_hint(cls)} Leave {option} out."
            )
        if name in listed:
            raise UsageError(f"{option} and --set {name}=… say the same. Leave one of them out.")
    for name in listed:
        if name not in cls.model_fields:
            near = nearest(name, cls.model_fields)
            hint = f"Did you mean {near!r}?" if near else _settings_hint(cls)
            raise UsageError(f"--set {name}=…: the task {task} has no {name!r}. {hint}")
    values = {**alone, **listed}
    if mistake := fault(cls, values):
        head = mistake.name.partition(".")[0]
        option = f"--{head}" if head in alone else f"--set {mistake.name}"
        raise UsageError(f"{option} {mistake.words}. Leave it out to use the value of the recipe.")
    refuse_balance(cls, task, options.balance)
    return values


def refuse_balance(cls: type[Settings], task: str, balance: str | None) -> None:
    """Raise a UsageError for --balance loss with a task that has no class weights."""
    if balance == "loss" and "class_weights" not in cls.model_fields:
        raise UsageError(
            f"--balance loss weights classes, and the task {task} has no class_weights. "
            "Use --balance sampling, or leave it out."
        )


def refuse_micro(task: str, micro: int | None, batch: int) -> None:
    """Raise a UsageError for pieces of a batch with a task whose loss couples the images of a batch."""
    if micro is not None and micro < batch and catalog.load("task", task).couples:
        raise UsageError(
            f"--micro computes a batch in pieces, and the loss of the task {task} compares all images of a batch with "
            "each other. Give a smaller --batch, start more processes, or add --grad-checkpointing."
        )


def _settings_hint(cls: type[Settings]) -> str:
    names = ", ".join(cls.model_fields)
    return f"It has: {names} (--set name=value)." if names else "It has no settings."
