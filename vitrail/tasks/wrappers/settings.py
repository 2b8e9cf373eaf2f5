"""Settings of distillation and of elastic training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vitrail.core.config import Settings

Keep = Annotated[float, Field(gt=0, lt=1)]


class WrapperSettings(Settings):
    """The wrapped task: its name and its own settings.

    A setting that the wrapper does not have belongs to the wrapped task: a fitted temperature, for example, or the
    settings of earlier model files, which stored both in one mapping.
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
    """The teacher and the distillation loss.

    `teacher` is a run folder, a model file, or weights by name or path; `share` is its share of the loss (None: the
    value of the paper); `temperature` softens the outputs in soft distillation.
    """

    teacher: str
    kind: Literal["hard", "soft"] = "hard"
    share: float | None = Field(default=None, gt=0, le=1)
    temperature: PositiveFloat = 3.0


class ElasticSettings(WrapperSettings):
    """The operating points to train besides the whole network: smaller input sizes, shares of kept tokens."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    keeps: tuple[Keep, ...] = ()
