"""Drawings of panoptic maps: every segment in the colour of its class, every thing with its outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.mask_outlines import outlines
from vitrail.data.panoptic import PanopticMap
from vitrail.plots import beside, distinct_colours, mask_overlay, titled, with_legend
from vitrail.plots.boxes import DrawnBox, draw_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

VOID = 255


def draw_segments(image: Image, found: PanopticMap, names: Sequence[str], things: NDArray[np.bool_]) -> Image:
    """Return the image with the areas of its classes in their colours, and its things with outlines and names."""
    drawn = _drawn(image, found, names, things)
    return with_legend(drawn, names, distinct_colours(len(names)), found.classes(VOID))


def draw_beside(
    image: Image, found: PanopticMap, true: PanopticMap, names: Sequence[str], things: NDArray[np.bool_]
) -> Image:
    """Return truth and prediction beside each other."""
    panels = [
        titled(_drawn(image, one, names, things), title)
        for one, title in ((true, "Truth"), (found, "Prediction"))
    ]
    return with_legend(
        beside(*panels), names, distinct_colours(len(names)), true.classes(VOID), found.classes(VOID)
    )


def _drawn(image: Image, found: PanopticMap, names: Sequence[str], things: NDArray[np.bool_]) -> Image:
    colours = distinct_colours(len(names))
    classes = found.classes(VOID)
    areas = np.where(np.isin(classes, np.flatnonzero(things)), np.uint8(VOID), classes)
    ground = mask_overlay(image, areas, colours)
    scale = ground.width / image.width  # a small image is enlarged
    return draw_boxes(ground, [_scaled(one, scale) for one in _shapes(found, names, things)])


def _scaled(one: DrawnBox, scale: float) -> DrawnBox:
    left, top, right, bottom = (side * scale for side in one.corners)
    return one._replace(corners=(left, top, right, bottom), shape=tuple(ring * scale for ring in one.shape))


def _shapes(found: PanopticMap, names: Sequence[str], things: NDArray[np.bool_]) -> list[DrawnBox]:
    """Return the things of a map as shapes, in their order."""
    drawn = []
    colours: Any = distinct_colours(len(names))
    for number, (kind, crowd) in enumerate(zip(found.kinds.tolist(), found.crowds.tolist(), strict=True), 1):
        rows, cols = np.nonzero(found.ids == number) if things[kind] else ((), ())
        if not len(rows):
            continue
        top, bottom, left, right = (int(one) for one in (min(rows), max(rows) + 1, min(cols), max(cols) + 1))
        inside = found.ids[top:bottom, left:right] == number
        rings = [ring for part in outlines(inside, (top, left)) for ring in (part.outer, *part.holes)]
        corners = (float(left), float(top), float(right), float(bottom))
        drawn.append(DrawnBox(corners, names[kind], colours[kind], names[kind], crowd, tuple(rings)))
    return drawn
