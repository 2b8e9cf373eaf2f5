"""Settings of single-label classification. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from vitrail.core.config import Settings


class ClassifySettings(Settings):
    """Settings of the head, of training (smoothing, mixing, loss) and of prediction (temperature)."""

    pool: Literal["cls", "mean", "cls_mean", "attention"] | None = None
    dropout: float = 0.0
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    temperature: float = 1.0
    class_weights: tuple[float, ...] | None = None
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
