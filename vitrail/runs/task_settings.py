"""The settings of a task in a recipe: their class, and their defaults for a named recipe."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vitrail.core import catalog
from vitrail.core.config import Settings, read_yaml
from vitrail.core.errors import SettingError

Regularization = Literal["mild", "light", "strong"]
"""How strongly a recipe asks its task to regularise; each task defines what this means."""


class Defaults(Settings):
    """The defaults.yaml of a task: settings by the recipe's `regularization`, then by its name (shell patterns).

    `training` holds training settings for every recipe, such as an augmentation that masks can follow; `taken` holds
    settings for a head that is taken from published weights, and does not start from noise.

    `usual` holds the recipes that it uses instead of those for the network, by the kind of training (`tune`).

    Every row that matches the recipe overrides the rows before it; null keeps the default of the task.
    """

    about: str = ""
    usual: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    taken: dict[str, Any] = Field(default_factory=dict)
    regularization: dict[Regularization, dict[str, Any]] = Field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)


def settings_class(task: str) -> type[Settings]:
    """Return the class of a task's settings; for a task without settings, an empty one."""
    if task in catalog.SETTINGS:
        registered: type[Settings] = catalog.load("task settings", task)
        return registered
    stated: object = getattr(catalog.load("task", task), "Settings", Settings)
    if not (isinstance(stated, type) and issubclass(stated, Settings)):
        raise SettingError(
            f"The `Settings` of the task {task!r} must be a class of vitrail.core.config.Settings."
        )
    return stated


def default_settings(task: str, recipe: str, regularization: Regularization | None) -> dict[str, Any]:
    """Return the task settings for a recipe with this name and regularization."""
    defaults = _defaults(task)
    rows: list[Mapping[str, Any]] = [defaults.settings]
    if regularization is not None:
        rows.append(defaults.regularization.get(regularization, {}))
    rows += [row for pattern, row in defaults.recipes.items() if fnmatchcase(recipe, pattern)]
    merged = {key: value for row in rows for key, value in row.items()}
    return {key: value for key, value in merged.items() if value is not None}


def usual_recipes(task: str) -> dict[str, str]:
    """Return the named recipes of a task by the kind of training, where it does not use those for the network."""
    return dict(_defaults(task).usual)


def default_training(task: str) -> dict[str, Any]:
    """Return the training settings of a task for every recipe."""
    return dict(_defaults(task).training)


def settings_of_taken(task: str) -> dict[str, Any]:
    """Return the settings of a task whose head is taken from published weights."""
    return dict(_defaults(task).taken)


def _defaults(task: str) -> Defaults:
    """Read the defaults.yaml in the folder of the task's module, if there is one; all tasks of the folder share it."""
    ours = task in catalog.TASKS
    module = catalog.TASKS[task].partition(":")[0] if ours else catalog.load("task", task).__module__
    package = module.rpartition(".")[0]
    path = Path(str(files(package).joinpath("defaults.yaml"))) if package else None
    return read_yaml(Defaults, path) if path and path.is_file() else Defaults()
