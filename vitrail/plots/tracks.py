"""Objects of a clip on its frames: each in its own colour, with its number; all drawings of a clip have one size."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vitrail.plots.boxes import Corners, DrawnBox
from vitrail.plots.colours import PAPER
from vitrail.plots.images import shown

COLOURS = 24
"""Colours of objects; with more objects they begin again."""

_LINE, _TEXT = 220, 30


def draw_tracks(frame: Image.Image, boxes: Sequence[DrawnBox]) -> Image.Image:
    """Return a frame with boxes or outlines and their texts, each over its box; a small frame is enlarged first."""
    ground = shown(frame).copy()
    scale, draw = ground.width / frame.width, ImageDraw.Draw(ground)
    side = min(min(ground.size) * 1.5, max(ground.size))
    line, font = max(2, round(side / _LINE)), ImageFont.load_default(max(11, round(side / _TEXT)))
    for box in boxes:
        around = tuple(one * scale for one in box.corners)
        for ring in box.shape:
            closed = [tuple(corner) for corner in [*(ring * scale).tolist(), (ring[0] * scale).tolist()]]
            draw.line(closed, fill=box.colour, width=line, joint="curve")
        if not box.shape:
            draw.rectangle(_inside(around, ground.size), outline=box.colour, width=line)
    for box in boxes:  # above all lines
        _text(draw, font, box, scale)
    return ground


def _inside(around: tuple[float, ...], size: tuple[int, int]) -> Corners:
    left, right = (max(0.0, min(one, size[0] - 1.0)) for one in (around[0], around[2] - 1))
    top, bottom = (max(0.0, min(one, size[1] - 1.0)) for one in (around[1], around[3] - 1))
    return left, top, max(left, right), max(top, bottom)


def _text(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: DrawnBox,
    scale: float,
) -> None:
    height = font.getbbox("Åy")[3] + 2
    left, top = max(0.0, box.corners[0] * scale), max(0.0, box.corners[1] * scale - height)
    plate = (left, top, left + font.getlength(box.text) + 4, top + height)
    draw.rectangle(plate, fill=box.colour)
    draw.text((left + 2, top), box.text, fill=PAPER, font=font)
