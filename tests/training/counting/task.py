"""Counts what is seen: enough of a task to plan a training with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vitrail.core.config import Settings
from vitrail.tasks.base import Task


class CountSettings(Settings):
    slack: Annotated[float, Field(ge=0)] = 0.5
    most: int = 10
    steep: bool = False


class Count(Task):
    Settings = CountSettings
