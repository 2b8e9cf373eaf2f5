"""The command that repeats a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vitrail.core.catalog import DEFAULT_TASKS, ELASTIC, load
from vitrail.core.text import command
from vitrail.data.options import LayoutOptions
from vitrail.runs.recipe import DataSettings, Recipe, TaskSettings, recipes, task_part
from vitrail.runs.task_wrapping import unwrap
from vitrail.runs.train_options import OF_TASK

DERIVED = ("pool", "class_weights")
"""Settings of a task that are computed from the network, the images and other options."""


def train_command(recipe: Recipe, weights: str, kind: str) -> str:
    """Return the command that repeats a run from its recipe.yaml; it names no folder of this machine.

    `weights` is the name of the weights in the model file, because the recipe may hold a path. `kind` is the kind of
    labels of the data. A task that is not the default for this kind, and task settings that differ from the named
    recipe, are written out for the reader, although recipe.yaml holds them, too.
    """
    training, data = recipe.training, recipe.data
    unwrapped = unwrap(recipe.task.model_dump())
    task = TaskSettings(**unwrapped.task)
    words: list[object] = ["--recipe", "recipe.yaml", "--model", recipe.model.name, "--weights", weights]
    if training.tune != "scratch":
        words += ["--tune", training.tune]
    if (
        task.name != DEFAULT_TASKS.get(kind) or kind == "none"
    ):  # images without labels are read only if asked for
        words += ["--task", task.name]
    if unwrapped.wrapper == ELASTIC:
        words.append("--elastic")
    words += _settings(task, recipe.recipe)
    for name in (field.name for field in fields(LayoutOptions)):
        if (value := getattr(data, name)) != getattr(DataSettings(), name):
            words += [f"--{name}", value]
    if training.precision != "auto":
        words += ["--precision", training.precision]
    if training.memory_format == "channels_last":
        words += ["--memory-format", training.memory_format]
    if training.micro and not load("task", task.name).couples:  # such batches are never cut
        words += ["--micro", training.micro]
    words += ["--val", f"{data.val:g}", "--test", f"{data.test:g}", "--seed", training.seed]
    return command("train", "IMAGES", *words)


def _settings(task: TaskSettings, name: str) -> list[str]:
    """Return the options for the settings that differ from the task's defaults for this named recipe."""
    usual: Mapping[str, Any] = task_part(task.name, name)["task"]["settings"] if name in recipes() else {}
    changed = {
        key: value
        for key, value in task.settings.items()
        if key not in DERIVED and value is not None and value != usual.get(key)
    }
    words = [
        word
        for key, value in changed.items()
        if key in OF_TASK
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]
    assignments = ",".join(
        f"{key}={json.dumps(value)}" for key, value in changed.items() if key not in OF_TASK
    )
    if assignments:
        words += ["--set", assignments]
    return words
