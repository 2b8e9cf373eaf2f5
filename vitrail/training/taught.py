"""Whether a training has a teacher: how a task is wrapped into distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.catalog import DISTILL
from vitrail.core.errors import SettingError
from vitrail.runs.options import TrainOptions
from vitrail.runs.recipe import Recipe
from vitrail.runs.wrapped import wrap


def taught(recipe: Recipe, teaching: Mapping[str, Any], options: TrainOptions) -> Recipe:
    """Wrap the task of a recipe into distillation where the recipe file or the user names a teacher."""
    said = {"teacher": options.teacher, "kind": options.distill}
    teaching = {**teaching, **{key: value for key, value in said.items() if value is not None}}
    if "teacher" not in teaching:
        if teaching:
            raise SettingError("--distill says how a teacher is followed; name one: --teacher runs/large")
        return recipe
    wrapped = wrap(DISTILL, teaching, recipe.task.name, recipe.task.settings)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update=wrapped)})
