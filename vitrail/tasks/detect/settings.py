"""Settings of detection. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from vitrail.core.config import Settings

Share = Annotated[float, Field(ge=0, le=1)]


class DetectSettings(Settings):
    """Settings of the detector, its training and its predictions.

    `width`, `layers` and `hidden` are the sizes of the decoder, `points` the places that each of its heads reads.
    `queries` is the most boxes that an image can have, `groups` the groups of queries while training, `anchor` the
    side of the boxes that all cells start from, in shares of the input; None: chosen from the training images. Cells
    whose centre is nearer than `margin` to the border, in shares of the input, propose nothing.
    `mosaic` is the share of inputs that are put together from four images in the first half of a training. `frozen`
    is the share of a training in which only the detector is trained, and `last_blocks` the blocks of a plain column
    that are trained after it (None: all). `head_rate` multiplies the learning rate of the detector relative to the
    encoder. `threshold` is the least confidence of a predicted box, `temperature` divides the logits; both are
    fitted on validation images. `nms` leaves out boxes that overlap a more confident box of their class by at least
    this much (0: none).
    """

    width: PositiveInt = 256
    layers: PositiveInt = 3
    hidden: PositiveInt = 1024
    points: PositiveInt = 2
    queries: PositiveInt | None = None
    groups: PositiveInt | None = None
    anchor: Annotated[float, Field(gt=0, le=1)] | None = None
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    mosaic: Share = 0.0
    last_blocks: PositiveInt | None = None
    frozen: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_rate: PositiveFloat = 1.0
    threshold: Share = 0.3
    temperature: PositiveFloat = 1.0
    nms: Share = 0.0
