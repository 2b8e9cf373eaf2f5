"""Wrap and unwrap the task of a recipe, for distillation and for elastic training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitrail.core.catalog import DISTILL, ELASTIC, WRAPPERS, load, with_task_name


class Unwrapped(NamedTuple):
    """The `task` of a recipe without its wrapper (with a name only if the recipe states one), and the wrapper."""

    task: dict[str, Any]
    wrapper: str | None = None
    settings: Mapping[str, Any] = {}

    def settings_of(self, wrapper: str) -> Mapping[str, Any]:
        """Return the settings of this wrapper; {} if the task has another wrapper or none."""
        return self.settings if self.wrapper == wrapper else {}


def unwrap(task: Mapping[str, Any]) -> Unwrapped:
    """Split the `task` of a recipe into task and wrapper. In old recipes the settings of both are in one mapping."""
    task = with_task_name(task)
    name: str | None = task.get("name")
    if name is None or name not in WRAPPERS:
        return Unwrapped(dict(task))
    values = dict(task.get("settings", {}))
    inner = {"name": values.pop("task", WRAPPERS[name]), "settings": values.pop("settings", {})}
    own = {key: values.pop(key) for key in load("task settings", name).model_fields if key in values}
    inner["settings"] = {**inner["settings"], **values}
    stated = {key: value for key, value in inner.items() if value is not None}
    return Unwrapped(stated, DISTILL if name == DISTILL else ELASTIC, own)


def wrap(wrapper: str, settings: Mapping[str, Any], task: str, inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `task` of a recipe with this wrapper."""
    return {"name": wrapper, "settings": {**settings, "task": task, "settings": dict(inner)}}
