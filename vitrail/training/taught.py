"""Whether a training has a teacher: how a task is wrapped into distillation, and unwrapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.catalog import DISTILL
from vitrail.core.errors import SettingError
from vitrail.runs.options import TrainOptions
from vitrail.runs.recipe import Recipe


def unwrapped(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take distillation off a recipe's task: what is left, and who teaches how; {} where nobody does.

    A task that the recipe does not name stays open.
    """
    task = said.get("task", {})
    if task.get("name") != DISTILL:
        return said, {}
    teaching = dict(task.get("settings", {}))
    inner = {"name": teaching.pop("task", None), "settings": teaching.pop("settings", {})}
    return {**said, "task": {key: value for key, value in inner.items() if value is not None}}, teaching


def taught(recipe: Recipe, teaching: Mapping[str, Any], options: TrainOptions) -> Recipe:
    """Wrap the task of a recipe into distillation where the recipe file or the user names a teacher."""
    said = {"teacher": options.teacher, "kind": options.distill}
    teaching = {**teaching, **{key: value for key, value in said.items() if value is not None}}
    if "teacher" not in teaching:
        if teaching:
            raise SettingError("--distill says how a teacher is followed; name one: --teacher runs/large")
        return recipe
    task = recipe.task
    settings = {**teaching, "task": task.name, "settings": dict(task.settings)}
    wrapped = task.model_copy(update={"name": DISTILL, "settings": settings})
    return recipe.model_copy(update={"task": wrapped})
