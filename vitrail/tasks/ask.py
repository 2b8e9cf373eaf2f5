"""Check the options of a prediction request against what a task supports."""

from __future__ import annotations

from typing import Any

from vitrail.core.errors import SettingError
from vitrail.tasks.abstention import Abstaining
from vitrail.tasks.base import Ask, Task


def asked_of(
    task: Task[Any, Any], threshold: float | None, sets: float | None = None, each_class: bool = False
) -> Ask:
    """Return the request options; raise SettingError for one that the task does not support or that is invalid."""
    _refuse_threshold(task, threshold)
    if sets is None and each_class:
        raise SettingError("--each-class has no effect without label sets. Add --sets 0.05.")
    if sets is not None:
        if not isinstance(task, Abstaining):
            raise SettingError(
                f"The task {task.name} has no label sets; a classification with one label per image has them. Remove "
                "--sets."
            )
        task.refuse_sets(sets)
    return Ask(threshold=threshold, sets=sets, each_class=each_class)


def _refuse_threshold(task: Task[Any, Any], threshold: float | None) -> None:
    if threshold is None:
        return
    if not task.takes_threshold:
        raise SettingError(
            f"The task {task.name} takes no threshold: its predictions contain probabilities. Remove --threshold."
        )
    if not 0 <= threshold <= 1:
        raise SettingError(f"A threshold is a probability from 0 to 1, got {threshold:g}.")
