"""Drawings of clips: a strip of frames with the share of each, and an animation. Pillow, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitrail.plots.colours import ACCENT, FAINT, INK, PAPER, SECOND
from vitrail.plots.images import heated

ACROSS = 8
"""Frames in a row of a strip."""

TILE, GAP, BARS, LINE = 200, 6, 48, 20
"""Width of a frame in a strip, the gap between two, the height of the bars below, and of a line of text, in pixels."""

RATE = 12
"""Frames per second of an animation."""

SHORTEST, LONGEST = 2.5, 12.0
"""Seconds that an animation lasts; shorter clips are slowed down, longer ones are quickened."""

SCREEN = 360
"""Largest side of each of the two pictures of an animation, in pixels."""


def strip(
    frames: Sequence[Image.Image], times: Sequence[float], shares: Sequence[float] = (), across: int = ACROSS
) -> Image.Image:
    """Return frames in rows, under each its time in seconds and, as a bar and in percent, its share.

    The longest bar fills its place; a dashed line is at equal shares.
    """
    tiles = [_tile(frame) for frame in frames]
    tall = tiles[0].height
    below = LINE + (BARS + GAP if shares else 0)
    columns, rows = min(across, len(tiles)), -(-len(tiles) // across)
    sheet = Image.new("RGB", (columns * (TILE + GAP) - GAP, rows * (tall + below + 2 * GAP) - 2 * GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, across)
        left, top = column * (TILE + GAP), row * (tall + below + 2 * GAP)
        sheet.paste(tile, (left, top))
        draw.text((left + 1, top + tall + below - LINE + 2), seconds(times[place]), INK, font)
        if shares:
            area = (left, top + tall + GAP, left + TILE, top + tall + GAP + BARS)
            _bars(draw, area, shares, range(place, place + 1))
            text = f"{shares[place]:.0%}"
            draw.text((left + TILE - 1, top + tall + below - LINE + 2), text, INK, font, anchor="ra")
    return sheet


def seconds(time: float) -> str:
    """Return a time in seconds, or from a minute on in minutes and seconds."""
    return f"{time:.2f} s" if time < 60 else f"{int(time // 60)}:{time % 60:04.1f}"


def animation(
    frames: Sequence[Image.Image],
    values: NDArray[np.floating],
    times: Sequence[float],
    shares: Sequence[float],
) -> Iterator[NDArray[np.uint8]]:
    """Yield an animation, `RATE` frames a second: each frame beside itself with its heat, above the bars of the shares.

    `values` is (t, height, width) in pixels of the frames; heat changes smoothly from frame to frame. Each picture is
    uint8 (height, width, 3) with even sides.
    """
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    small = [_fitted(frame, SCREEN) for frame in frames]
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    last = times[-1] + step
    count = max(2, round(min(LONGEST, max(SHORTEST, last - times[0])) * RATE))
    for moment in np.linspace(times[0], last, count, endpoint=False):
        place = max(0, int(np.searchsorted(times, moment, "right")) - 1)
        after = min(place + 1, len(times) - 1)
        part = min(1.0, (moment - times[place]) / step) if step else 0.0
        mixed = values[place] * (1 - part) + values[after] * part
        hot = heated(small[place], mixed, top).resize(small[place].size)
        yield _screen(small[place], hot, shares, place, f"{seconds(float(moment))}   {shares[place]:.0%}")


def _screen(
    plain: Image.Image, hot: Image.Image, shares: Sequence[float], now: int, caption: str
) -> NDArray[np.uint8]:
    width, below = 2 * plain.width + GAP, BARS + LINE + 2 * GAP
    width, height = width + width % 2, plain.height + below + (plain.height + below) % 2
    sheet = Image.new("RGB", (width, height), PAPER)
    sheet.paste(plain, (0, 0))
    sheet.paste(hot, (plain.width + GAP, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    top = plain.height + GAP
    _bars(draw, (0, top, width, top + BARS), shares, range(len(shares)), now)
    draw.text((1, top + BARS + 2), caption, INK, font)
    drawn: NDArray[np.uint8] = np.asarray(sheet)
    return drawn


def _bars(
    draw: ImageDraw.ImageDraw,
    area: tuple[int, int, int, int],
    shares: Sequence[float],
    places: range,
    now: int = -1,
) -> None:
    """Draw the bars of some places into an area (left, top, right, bottom); the bar at `now` has another colour."""
    left, top, right, bottom = area
    most, wide = max(*shares, 1 / len(shares)), (right - left) / len(places)
    for turn, place in enumerate(places):
        tall = round(shares[place] / most * (bottom - top))
        start, stop = (
            left + round(turn * wide),
            left + round((turn + 1) * wide) - (2 if len(places) > 1 else 1),
        )
        if tall:
            colour = SECOND if place == now else ACCENT
            draw.rectangle((start, bottom - tall, max(start, stop), bottom), fill=colour)
    even = bottom - round(1 / len(shares) / most * (bottom - top))
    for start in range(left, right, 8):
        draw.line((start, even, min(start + 4, right - 1), even), fill=INK)
    draw.line((left, bottom, right - 1, bottom), fill=FAINT)


def _tile(frame: Image.Image) -> Image.Image:
    """Return a frame in the width of a tile; a small one is enlarged without smoothing."""
    tall = max(1, min(4 * TILE, round(frame.height * TILE / frame.width)))
    way = Image.Resampling.NEAREST if frame.width < TILE else Image.Resampling.LANCZOS
    return frame.convert("RGB").resize((TILE, tall), way)


def _fitted(frame: Image.Image, side: int) -> Image.Image:
    scale = side / max(frame.size)
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return frame.convert("RGB").resize(size, way)
