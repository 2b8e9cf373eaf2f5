"""How classes of pixels are learned and answered; no torch, so that help and a wrong option cost no seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from vitrail.core.config import Settings

Share = Annotated[float, Field(ge=0, le=1)]


class SegmentSettings(Settings):
    """How classes of pixels are learned (head, losses, crops) and answered (windows, temperature, areas).

    `head` linear reads the last tokens, pixels maps of four depths; `stem` adds a convolutional stem for thin things.
    `dice` and `lovasz` are the weights of these losses beside cross entropy, `lovasz` in the last fifth of a training.
    `class_weights` None: by the areas of the classes, where `weigh` is on. `rare` is the share of crops that are
    chosen for a rare class in them. `frozen` is the share of a training in which the head learns alone, at
    `head_rate` times the learning rate of what stands before it.
    `zoom` 0 shows the whole image in the input, None does unless images are much larger than it; another number, pixels
    of the input for one of the image, trains on crops and answers in windows. `spacing` is (mm down, mm across) of a
    pixel where no file states it.
    """

    head: Literal["pixels", "linear"] = "pixels"
    width: PositiveInt = 256
    stem: bool = False
    dropout: Share = 0.0
    dice: NonNegativeFloat = 1.0
    lovasz: NonNegativeFloat = 0.0
    weigh: bool = True
    class_weights: tuple[float, ...] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rare: Share = 0.5
    frozen: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_rate: PositiveFloat = 1.0
    zoom: NonNegativeFloat | None = None
    temperature: PositiveFloat = 1.0
    spacing: tuple[PositiveFloat, PositiveFloat] | None = None
