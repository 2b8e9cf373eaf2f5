"""What is set of the wrappers: who teaches and how; for which costs a network is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from vitrail.core.config import Settings
from vitrail.tasks.classify.settings import ClassifySettings
from vitrail.tasks.multilabel.settings import MultiLabelSettings

Keep = Annotated[float, Field(gt=0, lt=1)]


class DistillSettings(Settings):
    """Who teaches and how, and the task that is learnt: its name and its own settings.

    `teacher` is a run folder, a model file, or weights by name or path; `share` is the part of the loss that it
    has (None: the paper's); `temperature` softens the answers that are compared in soft distillation.
    """

    teacher: str
    kind: Literal["hard", "soft"] = "hard"
    share: float | None = Field(default=None, gt=0, le=1)
    temperature: PositiveFloat = 3.0
    task: str = "classify"
    settings: dict[str, Any] = Field(default_factory=dict)


class Dial(Settings):
    """At which costs a network learns to answer, beside the whole: smaller sizes, shares of kept tokens."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    keeps: tuple[Keep, ...] = ()


class ElasticClassifySettings(Dial, ClassifySettings):
    """As for one class a picture, and the costs."""


class ElasticMultiLabelSettings(Dial, MultiLabelSettings):
    """As for several labels a picture, and the costs."""
