"""What is set of the wrappers: who teaches and how; for which costs a network is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vitrail.core.config import Settings

Keep = Annotated[float, Field(gt=0, lt=1)]


class WrapperSettings(Settings):
    """The task that is wrapped: its name and its own settings.

    A setting that the wrapper does not have is one of the wrapped task: a temperature that was learned, or what model
    files of earlier versions hold side by side.
    """

    task: str = "classify"
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _hand_down(cls, values: Any) -> Any:
        others = {name: value for name, value in values.items() if name not in cls.model_fields}
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        return {**own, "settings": {**own.get("settings", {}), **others}}


class DistillSettings(WrapperSettings):
    """Who teaches and how.

    `teacher` is a run folder, a model file, or weights by name or path; `share` is the part of the loss that it
    has (None: the paper's); `temperature` softens the answers that are compared in soft distillation.
    """

    teacher: str
    kind: Literal["hard", "soft"] = "hard"
    share: float | None = Field(default=None, gt=0, le=1)
    temperature: PositiveFloat = 3.0


class ElasticSettings(WrapperSettings):
    """At which costs a network learns to answer, beside the whole: smaller sizes, shares of kept tokens."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    keeps: tuple[Keep, ...] = ()
