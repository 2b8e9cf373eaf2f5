"""Boxes and masks on images: in the colour of their class, with a plate of text; truth beside prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont

from vitrail.plots.colours import FRAME, INK, PAPER, SECOND
from vitrail.plots.images import beside, shown, titled, with_legend

MATCHED, MISSED, INVENTED = "#009e73", SECOND, FRAME
"""Colours of boxes in a comparison: found and true, true only, found only."""

Colour = tuple[int, int, int] | str
Corners = tuple[float, float, float, float]

_LINE, _TEXT = 220, 42
"""Shares of the image: the width of a line, and the size of the text."""

_OVERLAP = 0.15
"""A plate of text that covers a larger share of its area of other plates is left out; the legend names its class."""

_COVERED = 0.12
"""Plates that would cover a larger share of the image are all left out: the legend names the classes instead."""

_DASH = 5  # the length of a dash, in widths of the line

_FILL = 0.35
"""Opacity of the area of a mask."""


class DrawnBox(NamedTuple):
    """A box to draw: its corners in pixels of the image, the text of its plate, and its colour.

    `kind` is its name in the legend, by default the text; `faint` boxes are dashed: crowds, difficult ones. With a
    `shape` the object is drawn in place of the frame: closed lines of corners (n, 2) in pixels of the image, each
    around a part of the object or a hole in it.
    """

    corners: Corners
    text: str
    colour: Colour
    kind: str = ""
    faint: bool = False
    shape: tuple[NDArray[np.float64], ...] = ()

    @property
    def name(self) -> str:
        return self.kind or self.text


@dataclass(frozen=True)
class _Pen:
    """What is the same for all boxes of a drawing: the scale to its pixels, width of lines, font and height of text."""

    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    scale: float
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    tall: int


def draw_boxes(image: Image.Image, boxes: Sequence[DrawnBox], *, weight: float = 1.0) -> Image.Image:
    """Return the image with boxes and their texts; a small image is enlarged first.

    The first box lies on top, so give the highest scores first. Plates of text stay inside the image and do not cover
    each other; a legend below names the classes if a plate had no place. `weight` multiplies the width of lines, for
    drawings that are shown smaller.
    """
    ground = shown(image).copy()
    pen = _pen(ground, ground.width / image.width, weight)
    for box in reversed(boxes):
        if box.shape:
            _shape(ground, pen, box)
        else:
            _outline(pen, box)
    placed: list[Corners] = []
    texts = sum(pen.font.getlength(box.text) for box in boxes)
    hidden = texts * pen.tall > _COVERED * ground.width * ground.height
    for box in () if hidden else boxes:
        hidden |= not _plate(pen, box, placed)
    return _legend(ground, boxes) if hidden else ground


def compare_boxes(
    image: Image.Image,
    truth: Sequence[DrawnBox],
    found: Sequence[DrawnBox],
    pairs: Sequence[tuple[int, int]],
) -> Image.Image:
    """Return truth and prediction beside each other, with what is matched, missed and invented in colours and words.

    `pairs` are the indices of matched boxes, (true, found). Faint true boxes without a partner are not missed, and
    keep their own colour.
    """
    true_ones, found_ones = {one for one, _ in pairs}, {other for _, other in pairs}
    missed = [not box.faint and i not in true_ones for i, box in enumerate(truth)]
    invented = [not box.faint and i not in found_ones for i, box in enumerate(found)]
    left = [
        _judged(box, i in true_ones, bad, "missed", MISSED)
        for i, (box, bad) in enumerate(zip(truth, missed, strict=True))
    ]
    right = [
        _judged(box, i in found_ones, bad, "invented", INVENTED)
        for i, (box, bad) in enumerate(zip(found, invented, strict=True))
    ]
    ground = shown(image)
    left_title = f"Truth: {len(truth)}, {sum(missed)} missed"
    right_title = f"Prediction: {len(found)}, {sum(invented)} invented"
    drawings = (draw_boxes(image, one) for one in (left, right))
    size = max(13, min(ground.size) // 26)
    return beside(
        *(
            titled(drawn, title, size)
            for drawn, title in zip(drawings, (left_title, right_title), strict=True)
        )
    )


def _judged(box: DrawnBox, matched: bool, bad: bool, word: str, colour: str) -> DrawnBox:
    if matched:
        return box._replace(colour=MATCHED, kind="matched")
    return box._replace(text=f"{word} {box.text}", colour=colour, kind=word) if bad else box


def _pen(ground: Image.Image, scale: float, weight: float) -> _Pen:
    side = min(min(ground.size) * 1.5, max(ground.size))
    font = ImageFont.load_default(max(11, round(side / _TEXT)))
    top, bottom = font.getbbox("Åy")[1::2]
    return _Pen(
        ImageDraw.Draw(ground),
        ground.size,
        scale,
        max(2, round(weight * side / _LINE)),
        font,
        round(bottom - top) + 4,
    )


def _outline(pen: _Pen, box: DrawnBox) -> None:
    """Draw the frame of a box with a light rim; a box that ends at the border keeps its line inside."""
    right_most, lowest = pen.size[0] - 1, pen.size[1] - 1
    left, top, right, bottom = (number * pen.scale for number in box.corners)
    left, right = max(0.0, min(left, right_most)), max(0.0, min(right - 1, right_most))
    top, bottom = max(0.0, min(top, lowest)), max(0.0, min(bottom - 1, lowest))
    around = (left, top, max(left, right), max(top, bottom))
    if box.faint:
        for line in _dashes(around, _DASH * pen.line):
            pen.draw.line(line, fill=box.colour, width=pen.line)
        return
    rim = (around[0] - 1, around[1] - 1, around[2] + 1, around[3] + 1)
    pen.draw.rectangle(rim, outline=PAPER, width=1)
    pen.draw.rectangle(around, outline=box.colour, width=pen.line)


def _shape(ground: Image.Image, pen: _Pen, box: DrawnBox) -> None:
    """Fill the area of an object and draw its outlines; the area of a crowd stays clear."""
    rings = [ring * pen.scale for ring in box.shape]
    every = np.concatenate(rings)
    low, high = np.floor(every.min(0)).astype(int), np.ceil(every.max(0)).astype(int) + 1
    if not box.faint:
        covered = Image.new("1", tuple((high - low).tolist()))
        for ring in rings:  # a hole is a ring inside another one: what two rings hold is outside again
            one = Image.new("1", covered.size)
            ImageDraw.Draw(one).polygon((ring - low).ravel().tolist(), fill=1)
            covered = ImageChops.logical_xor(covered, one)
        area = covered.convert("L").point(lambda value: round(_FILL * value))
        ground.paste(Image.new(ground.mode, covered.size, box.colour), tuple(low.tolist()), area)
    for ring in rings:
        line = [tuple(corner) for corner in [*ring.tolist(), ring[0].tolist()]]
        pen.draw.line(line, fill=box.colour, width=max(1, pen.line - 1), joint="curve")


def _dashes(around: Corners, length: int) -> Iterator[Corners]:
    left, top, right, bottom = around
    for x in np.arange(left, right, 2 * length).tolist():
        for y in (top, bottom):
            yield x, y, min(x + length, right), y
    for y in np.arange(top, bottom, 2 * length).tolist():
        for x in (left, right):
            yield x, y, x, min(y + length, bottom)


def _plate(pen: _Pen, box: DrawnBox, placed: list[Corners]) -> bool:
    """Draw the text of a box where it covers no other text; return False if there is no such place."""
    text = _short(box.text, pen)
    if not text:
        return True
    wide = pen.font.getlength(text) + 6
    best: tuple[float, Corners] | None = None
    for left, top in _places(pen, box.corners, wide):
        plate = (left, top, left + wide, top + pen.tall)
        covered = sum(_common(plate, other) for other in placed) / (wide * pen.tall)
        if best is None or covered < best[0]:
            best = covered, plate
        if not covered:
            break
    if best is None or best[0] > _OVERLAP:
        return False
    placed.append(best[1])
    left, top, right, bottom = best[1]
    pen.draw.rectangle((left, top, right - 1, bottom - 1), fill=box.colour)
    pen.draw.text((left + 3, (top + bottom) / 2), text, _readable(box.colour), pen.font, anchor="lm")
    return True


def _places(pen: _Pen, corners: Corners, wide: float) -> Iterator[tuple[float, float]]:
    """Yield the corners of a plate inside the image: above the box, in it, below it, at its left or right end."""
    left, top, right, bottom = (number * pen.scale for number in corners)
    highest = (top - pen.tall, top, bottom, bottom - pen.tall)
    for at in highest:
        for start in (left, right - wide):
            inside = max(0.0, min(start, pen.size[0] - wide))
            if 0 <= at <= pen.size[1] - pen.tall:
                yield inside, at
    yield max(0.0, min(left, pen.size[0] - wide)), max(0.0, min(top, pen.size[1] - pen.tall))


def _common(a: Corners, b: Corners) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _short(text: str, pen: _Pen) -> str:
    """Return the text, shortened to three quarters of the width of the image."""
    while pen.font.getlength(text) > 0.75 * pen.size[0] and len(text) > 2:
        text = text[:-2] + "…"
    return text


def _readable(colour: Colour) -> str:
    """Return the colour of text that is readable on a colour: dark on light, light on dark."""
    from PIL.ImageColor import getrgb

    red, green, blue = (getrgb(colour) if isinstance(colour, str) else colour)[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def _legend(ground: Image.Image, boxes: Sequence[DrawnBox]) -> Image.Image:
    from PIL.ImageColor import getrgb

    colours = {
        box.name: getrgb(box.colour)[:3] if isinstance(box.colour, str) else box.colour for box in boxes
    }
    names = list(colours)[:255]
    return with_legend(
        ground, names, [colours[name] for name in names], np.arange(len(names), dtype=np.uint8)[None]
    )
