"""Settings of segmentation. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from vitrail.core.config import Settings

Share = Annotated[float, Field(ge=0, le=1)]


class SegmentSettings(Settings):
    """Settings of training (head, losses, crops) and of prediction (windows, temperature, areas).

    `head` "linear" reads the last tokens, "pixels" reads maps of four depths; `stem` adds a convolutional stem for thin
    objects. `dice` and `lovasz` are the weights of these losses relative to cross entropy; `lovasz` is used in the last
    fifth of a training. `class_weights` None: computed from the areas of the classes if `weigh` is on. `rare` is the
    share of crops that are chosen because they contain a rare class. `frozen` is the share of a training in which only
    the head is trained; `head_rate` multiplies the learning rate of the head relative to the encoder.
    `zoom` 0 fits the whole image into the input; None does the same unless images are much larger than the input; any
    other number (input pixels per image pixel) trains on crops and predicts in windows. `spacing` is the pixel size
    (mm down, mm across) if no file states it.
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
