"""The prediction of instance segmentation: the boxes of detection, and the mask of each object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.data.boxes import take_found
from vitrail.data.instances import FoundInstances, Runs, boxes_around, cut_mask, mask_areas
from vitrail.data.mask_outlines import rings_of
from vitrail.tasks.detect.prediction import Objects

SIXTEEN_BITS = 65_535
"""Most objects of a label map."""


@dataclass(frozen=True, slots=True)
class Shapes(Objects):
    """The objects of one image, the most confident first; `masks` are theirs, in the pixels of the original."""

    masks: tuple[Runs, ...] = ()

    @property
    def instances(self) -> FoundInstances:
        """The objects as boxes and masks."""
        return FoundInstances(self.found, self.masks)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row an object: those of `Objects`, and the area of its mask in pixels."""
        areas = mask_areas(self.masks).astype(int).tolist()
        return [{**row, "area": area} for row, area in zip(Objects.rows(self), areas, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return the size of the image and its objects, each with its mask as COCO's run lengths and as polygons.

        A polygon is a list x, y, x, y, … in pixels; those after the first of a part are holes in it.
        """
        height, width = self.geometry.original
        objects = [
            {**row, "rle": mask.to_dict(), "polygons": _polygons(mask)}
            for row, mask in zip(self.rows(), self.masks, strict=True)
        ]
        return {"width": width, "height": height, "objects": objects}

    def files(self) -> Mapping[str, bytes]:
        """Return the files of a prediction by file name suffix: a label map, in which object i has the value i + 1."""
        from PIL import Image

        return {".label_map.png": plots.png_of(Image.fromarray(self.label_map()))}

    def label_map(self) -> NDArray[np.uint16]:
        """Return the number of the object of each pixel, from 1 in the order of the rows, 0 for none: (height, width).

        Where objects overlap, the more confident one lies on top.
        """
        labels = np.zeros(self.geometry.original, np.uint16)
        around = boxes_around(self.masks).astype(int).tolist()
        for number in range(min(len(self.masks), SIXTEEN_BITS), 0, -1):
            left, top, right, bottom = around[number - 1]
            there = cut_mask(self.masks[number - 1], (left, top, right, bottom))
            np.copyto(labels[top:bottom, left:right], number, where=there.view(np.bool_))
        return labels

    def outlines(self, place: int) -> tuple[NDArray[np.float64], ...]:
        """Return the outline of an object, closed lines of corners (n, 2) in pixels, around its parts and holes."""
        return tuple(rings_of(self.masks[place]))

    def only(self, kept: NDArray[Any]) -> Self:
        """Return the objects at these places, given as indices or as a mask."""
        places = np.arange(len(self.masks))[kept].tolist()
        masks = tuple(self.masks[place] for place in places)
        return replace(self, found=take_found(self.found, kept), masks=masks)


def _polygons(mask: Runs) -> list[list[float]]:
    return [np.round(ring, 2).ravel().tolist() for ring in rings_of(mask)]
