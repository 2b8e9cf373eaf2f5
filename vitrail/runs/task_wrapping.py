"""A task in a recipe, and what wraps it: learned from a teacher, or for several costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitrail.core.catalog import DISTILL, ELASTIC, WRAPPERS, load, with_task_name


class Unwrapped(NamedTuple):
    """The `task` of a recipe without its wrapper (a name only where it states one), and the wrapper's own settings."""

    task: dict[str, Any]
    wrapper: str | None = None
    settings: Mapping[str, Any] = {}

    def settings_of(self, wrapper: str) -> Mapping[str, Any]:
        """Return what is set of this wrapper; {} where the task is wrapped in another, or in none."""
        return self.settings if self.wrapper == wrapper else {}


def unwrap(task: Mapping[str, Any]) -> Unwrapped:
    """Take the `task` of a recipe apart; earlier recipes have the settings of wrapper and task side by side."""
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
    """Return the `task` of a recipe that is wrapped."""
    return {"name": wrapper, "settings": {**settings, "task": task, "settings": dict(inner)}}
