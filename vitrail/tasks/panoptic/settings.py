"""Settings of panoptic segmentation. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from vitrail.tasks.instances.settings import InstanceSettings
from vitrail.tasks.segment.settings import SegmentSettings

AREAS = ("stem", "dropout", "dice", "weigh", "class_weights", "smoothing", "frozen", "head_rate")
"""Settings of the class of every pixel that have the same names as in segmentation."""


class PanopticSettings(InstanceSettings):
    """Settings of things, those of instance segmentation, and of the class of every pixel, those of segmentation.

    `pixel_width` is the width of the map of classes, `stem` adds a convolutional stem to it; `area_weight` multiplies
    its losses. Where things and classes are merged, an object of which others cover more than `overlap` is left out,
    and so is an area of fewer than `least_area` pixels. `merge` "things_first" puts things, by confidence, on the areas
    of the other classes; "queries" is for networks whose queries find all classes.
    """

    pixel_width: PositiveInt = 256
    stem: bool = False
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    dice: NonNegativeFloat = 1.0
    weigh: bool = True
    class_weights: tuple[float, ...] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    area_weight: NonNegativeFloat = 1.0
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.5
    least_area: NonNegativeInt = 64
    merge: Literal["things_first", "queries"] = "things_first"

    def of_things(self) -> dict[str, object]:
        """Return the settings of things alone."""
        return {name: getattr(self, name) for name in InstanceSettings.model_fields}

    def of_areas(self) -> dict[str, object]:
        """Return the settings of the class of every pixel alone."""
        own: dict[str, object] = {name: getattr(self, name) for name in AREAS}
        assert own.keys() <= SegmentSettings.model_fields.keys()
        return {**own, "width": self.pixel_width}
