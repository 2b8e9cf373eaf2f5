"""The command that makes a run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vitrail.core.catalog import DEFAULT_TASKS, ELASTIC
from vitrail.core.text import command
from vitrail.runs.recipe import DataSettings, Recipe, TaskSettings, recipes, task_part
from vitrail.runs.task_wrapping import unwrap
from vitrail.runs.train_options import OF_TASK

DERIVED = ("pool", "class_weights")
"""Settings of a task that the plan makes from the network, the images and other options."""


def train_command(recipe: Recipe, weights: str, kind: str) -> str:
    """Return the command that makes a run again from its recipe.yaml; no folder of this machine is named in it.

    `weights` is the name under which the model file knows them: the recipe may hold a path; `kind` is the kind of
    truth of the data. A task that such data do not get by themselves, and settings of it that the recipe of this
    name has otherwise, are named for who reads them; they stand in recipe.yaml, too.
    """
    training, data = recipe.training, recipe.data
    found = unwrap(recipe.task.model_dump())
    task = TaskSettings(**found.task)
    words: list[object] = ["--recipe", "recipe.yaml", "--model", recipe.model.name, "--weights", weights]
    words += [] if training.tune == "scratch" else ["--tune", training.tune]
    words += [] if task.name == DEFAULT_TASKS.get(kind) else ["--task", task.name]
    words += ["--elastic"] if found.wrapper == ELASTIC else []
    words += _settings(task, recipe.recipe)
    for name in ("layout", "labels", "groups", "splits"):
        if (value := getattr(data, name)) != getattr(DataSettings(), name):
            words += [f"--{name}", value]
    words += ["--precision", training.precision] if training.precision != "auto" else []
    words += ["--micro", training.micro] if training.micro else []
    words += ["--val", f"{data.val:g}", "--test", f"{data.test:g}", "--seed", training.seed]
    return command("train", "IMAGES", *words)


def _settings(task: TaskSettings, name: str) -> list[str]:
    """Return the options for what differs from the task's defaults in the recipe of this name."""
    usual: Mapping[str, Any] = task_part(task.name, name)["task"]["settings"] if name in recipes() else {}
    changed = {
        key: value
        for key, value in task.settings.items()
        if key not in DERIVED and value is not None and value != usual.get(key)
    }
    words = [word for key, value in changed.items() if key in OF_TASK for word in (f"--{key}", str(value))]
    listed = ",".join(f"{key}={json.dumps(value)}" for key, value in changed.items() if key not in OF_TASK)
    return [*words, *(["--set", listed] if listed else [])]
