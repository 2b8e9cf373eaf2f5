"""Masks of objects on images: a translucent area with an outline, in the colour of the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.plots.images import shown, with_legend

_LINE = 300
"""The width of an outline, as a share of the image."""


class DrawnMask(NamedTuple):
    """A mask to draw: its pixels (row, col) with their left and top in the image, and its colour.

    `name` is what the legend calls it. `faint` masks have an outline alone: crowds, difficult ones.
    """

    pixels: NDArray[np.bool_]
    corner: tuple[int, int]
    colour: tuple[int, int, int]
    name: str = ""
    faint: bool = False


def draw_masks(
    image: Image.Image, masks: Sequence[DrawnMask], *, strength: float = 0.45, legend: bool = True
) -> Image.Image:
    """Return the image with masks drawn on it; a small image is enlarged first.

    The first mask lies on top, so give the highest scores first. A legend below names the classes.
    """
    ground = np.array(shown(image))
    scale = ground.shape[1] / image.width
    line = max(1, round(min(ground.shape[:2]) / _LINE))
    for mask in reversed(masks):
        _paint(ground, mask, scale, line, strength)
    drawn = Image.fromarray(ground)
    named = {mask.name: mask.colour for mask in masks if mask.name}
    if not legend or not named:
        return drawn
    names = list(named)[:255]
    places = np.arange(len(names), dtype=np.uint8)[None]
    return with_legend(drawn, names, [named[name] for name in names], places)


def _paint(ground: NDArray[np.uint8], mask: DrawnMask, scale: float, line: int, strength: float) -> None:
    """Paint one mask into an image (height, width, 3) that is `scale` times as large as that of the mask."""
    rows, cols = mask.pixels.shape
    left, top = (round(side * scale) for side in mask.corner)
    right = min(ground.shape[1], max(left + 1, round((mask.corner[0] + cols) * scale)))
    bottom = min(ground.shape[0], max(top + 1, round((mask.corner[1] + rows) * scale)))
    if left >= right or top >= bottom:
        return
    size = (right - left, bottom - top)
    pixels = np.asarray(Image.fromarray(mask.pixels).resize(size, Image.Resampling.NEAREST))
    part = ground[top:bottom, left:right]
    colour = np.array(mask.colour, np.float32)
    if not mask.faint:
        part[pixels] = (part[pixels] * (1 - strength) + colour * strength).round().astype(np.uint8)
    part[pixels & ~_eroded(pixels, line)] = mask.colour


def _eroded(pixels: NDArray[np.bool_], line: int) -> NDArray[np.bool_]:
    """Return the pixels (row, col) that are more than `line` pixels inside."""
    inner = np.pad(pixels, 1)
    for _ in range(line):
        core = inner[1:-1, 1:-1]
        core &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return inner[1:-1, 1:-1]
