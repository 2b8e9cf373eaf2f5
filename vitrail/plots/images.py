"""Drawings on images: heat maps, masks, legends, bars and titles. Pillow, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitrail.plots.colours import FRAME, INK, PAPER

HEAT = "inferno"
"""The colour map of every heat map: uniform in brightness, readable in print and by colour-blind people."""

THIN = 8
"""The largest aspect ratio of an image that is enlarged for its short side alone."""

LONGEST = 16_384
"""The longest side of a drawing in pixels; a longer image is made smaller."""

STRIP = 1 << 20
"""Pixels that are coloured at a time: a colour map takes 32 bytes per pixel."""


def shown(image: Image.Image, least: int = 256) -> Image.Image:
    """Return the image in RGB; a small image is enlarged without smoothing until its short side has `least` pixels.

    The long side is never enlarged beyond `THIN` times `least`, and never longer than `LONGEST`.
    """
    rgb = image.convert("RGB")
    short, long = min(rgb.size), max(rgb.size)
    factor = min(-(-least // short), -(-THIN * least // long))
    if factor > 1:
        return rgb.resize((rgb.width * factor, rgb.height * factor), Image.Resampling.NEAREST)
    if long > LONGEST:
        rgb.thumbnail((LONGEST, LONGEST))
    return rgb


def of_array(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return uint8 (height, width, 1 or 3) as an image."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def heat(image: Image.Image, values: NDArray[np.floating], strength: float = 0.6) -> Image.Image:
    """Lay a map over an image, with its scale below.

    `values` is (height, width) in the pixels of the image, 0 or more, NaN outside the input of the network; it is
    divided by its largest value. Brighter means more.
    """
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    return with_scale(heated(image, values, top, strength), top)


def heated(
    image: Image.Image, values: NDArray[np.floating], top: float, strength: float = 0.6
) -> Image.Image:
    """Lay a map, divided by `top`, over an image as `heat` does, without a scale."""
    ground = shown(image)
    share = np.nan_to_num(values / top if top > 0 else values, nan=0.0).astype(np.float32)
    layer = np.asarray(Image.fromarray(share).resize(ground.size, Image.Resampling.BILINEAR))
    seen = np.asarray(Image.fromarray(np.isfinite(values)).resize(ground.size, Image.Resampling.NEAREST))
    grey = np.asarray(ground.convert("L"))
    mixed = np.empty((*grey.shape, 3), np.uint8)
    rows = max(1, STRIP // ground.width)
    for top_row in range(0, ground.height, rows):
        part = slice(top_row, top_row + rows)
        mixed[part] = _mixed(grey[part], layer[part], np.where(seen[part], strength, 0.0))
    return Image.fromarray(mixed)


def _mixed(
    grey: NDArray[np.uint8], weight: NDArray[np.floating], alpha: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Blend the colours of a map with grey, each (height, width), with opacity `alpha`."""
    colour = _colour_map(HEAT, np.clip(weight, 0.0, 1.0)) * 255
    strength = alpha[..., None]
    mixed = np.clip(grey.astype(np.float32)[..., None] * (1 - strength) + colour * strength, 0, 255)
    rounded: NDArray[np.uint8] = mixed.astype(np.uint8)
    return rounded


def _colour_map(name: str, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the colours of values from 0 to 1 in one of Matplotlib's maps: (…, 3), from 0 to 1."""
    from matplotlib import colormaps  # slow to import, and only drawings need it

    colours: NDArray[np.float64] = colormaps[name](values)[..., :3]
    return colours


def _text_size(image: Image.Image, part: int) -> int:
    """Return a font size of 1 / `part` of the image's width; smaller on a thin image."""
    return max(13, min(image.width, THIN * image.height) // part)


def with_scale(image: Image.Image, top: float, letters: int = 0) -> Image.Image:
    """Return an image above the colours of heat from 0 to `top`; `letters` is the height of the text, 0: by width."""
    bar, size = max(6, image.height // 40), letters or _text_size(image, 26)
    sheet = Image.new("RGB", (image.width, image.height + bar + size + 7), PAPER)
    sheet.paste(image, (0, 0))
    ramp = _colour_map(HEAT, np.linspace(0, 1, image.width))[None] * 255
    sheet.paste(Image.fromarray(np.repeat(ramp, bar, axis=0).astype(np.uint8)), (0, image.height + 2))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size)
    line = image.height + bar + 3
    draw.text((1, line), "0", INK, font)
    draw.text((image.width - 1, line), f"{top:.3g}", INK, font, anchor="ra")
    return sheet


def heat_grid(layers: Sequence[NDArray[np.floating]], gap: int = 3) -> Image.Image:
    """Return attention as a grid of maps, one row per layer and one column per head; brighter means more weight.

    `layers` holds (heads, row, col) per layer, whose grids may differ; each map is divided by its largest value.
    """
    font, edge = ImageFont.load_default(12), 58
    heads = max(len(maps) for maps in layers)
    shape, side = layers[0].shape[1:], min(84, max(46, 620 // heads))
    tall, wide = (round(side * min(THIN, length / min(shape))) for length in shape)
    size = (edge + heads * (wide + gap), 20 + len(layers) * (tall + gap))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for head in range(heads):
        draw.text(
            (edge + head * (wide + gap) + wide / 2, 3), f"head {head + 1}"[-wide // 7 :], INK, font, "ma"
        )
    for turn, maps in enumerate(layers):
        top = 20 + turn * (tall + gap)
        draw.text((2, top + tall / 2), f"layer {turn + 1}", INK, font, anchor="lm")
        for head, values in enumerate(maps):
            tile = Image.fromarray(heat_colours(values)).resize((wide, tall), Image.Resampling.NEAREST)
            sheet.paste(tile, (edge + head * (wide + gap), top))
    return sheet


def heat_colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a map (row, col), 0 or more, divided by its largest value, in the heat map colours: (row, col, 3)."""
    top = float(values.max())
    share = values / top if top > 0 else values
    colours: NDArray[np.uint8] = (_colour_map(HEAT, share) * 255).round().astype(np.uint8)
    return colours


def squares_apart(image: Image.Image, side: int, framed: int, gap: int = 2) -> Image.Image:
    """Return the image cut into squares of `side` pixels with gaps between them; square number `framed` has a frame."""
    rgb = image.convert("RGB")
    rows, cols = rgb.height // side, rgb.width // side
    scale = max(1, min(-(-320 // rgb.width), THIN * 320 // rgb.height))
    edge, step = side * scale, side * scale + gap * 2
    sheet = Image.new("RGB", (cols * step + gap, rows * step + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place in range(rows * cols):
        row, col = divmod(place, cols)
        box = (col * side, row * side, (col + 1) * side, (row + 1) * side)
        square = rgb.crop(box).resize((edge, edge), Image.Resampling.NEAREST)
        left, top = col * step + gap, row * step + gap
        sheet.paste(square, (left, top))
    row, col = divmod(framed, cols)
    left, top, rim = col * step + gap, row * step + gap, 2 * gap + edge // 12
    draw.rectangle(
        (left - rim, top - rim, left + edge + rim - 1, top + edge + rim - 1), outline=FRAME, width=rim
    )
    return sheet


def framed(drawn: Image.Image, box: Sequence[float], width: int, least: int = 12) -> Image.Image:
    """Return a drawing with a frame around `box` (left, top, right, bottom), in pixels of the original image.

    `width` is the width of the original. A small frame is enlarged to `least` pixels per side to stay visible.
    """
    scale, rim = drawn.width / width, max(2, drawn.width // 200)
    left, top, right, bottom = (side * scale for side in box)
    wide, tall = (max(0.0, least - length) / 2 + rim for length in (right - left, bottom - top))
    around = (left - wide, top - tall, right + wide - 1, bottom + tall - 1)
    sheet = drawn.copy()
    draw = ImageDraw.Draw(sheet)
    draw.rectangle(
        tuple(a + b for a, b in zip(around, (-1, -1, 1, 1), strict=True)), outline=PAPER, width=rim + 2
    )
    draw.rectangle(around, outline=FRAME, width=rim)
    return sheet


def signed(values: NDArray[np.floating], width: int = 768) -> Image.Image:
    """Draw a matrix (rows, columns): red above zero, blue below, white at zero, as bright as its 99th percentile."""
    top = float(np.percentile(np.abs(values), 99)) or 1.0
    ramp = (_colour_map("RdBu_r", np.linspace(0, 1, 255)) * 255).astype(np.uint8)
    places = (np.clip(values / top, -1, 1) * 127 + 127).round().astype(np.uint8)
    drawn = Image.fromarray(places)
    drawn.putpalette(ramp.tobytes())  # one byte per number: pages of large networks stay small
    across = max(1, width // drawn.width)
    down = max(1, (48 if drawn.height < 8 else 240) // drawn.height)
    return drawn.resize((drawn.width * across, drawn.height * down), Image.Resampling.NEAREST)


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours that are easy to distinguish: hues a golden angle apart, in three brightnesses."""
    from matplotlib.colors import hsv_to_rgb  # slow to import, and only drawings need it

    hues = (np.arange(count) * 0.61803398875 + 0.58) % 1.0
    bright, full = np.array([0.95, 0.7, 0.85]), np.array([0.75, 0.9, 0.45])
    turns = np.arange(count) % 3
    colours = hsv_to_rgb(np.stack([hues, full[turns], bright[turns]], -1).reshape(-1, 3))
    return tuple((int(r), int(g), int(b)) for r, g, b in (colours * 255).round())


def with_palette(mask: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]], void: int) -> Image.Image:
    """Return a mask of class indices as an image with a palette: the indices are kept, `void` is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    table[void] = 0
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())
    return image


def mask_overlay(
    image: Image.Image,
    mask: NDArray[np.uint8],
    colours: Sequence[tuple[int, int, int]],
    names: Sequence[str] = (),
    strength: float = 0.55,
) -> Image.Image:
    """Draw the classes of a mask over an image in their colours, with a legend of `names` below.

    Pixels of no class stay as they are. A small image and its mask are enlarged by the same factor.
    """
    ground = shown(image)
    large = Image.fromarray(mask).resize(ground.size, Image.Resampling.NEAREST)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    places = np.asarray(large)
    seen = Image.fromarray(((places < len(colours)) * np.uint8(round(255 * strength))).astype(np.uint8))
    mixed = ground.copy()
    mixed.paste(Image.fromarray(table[places]), mask=seen)
    return with_legend(mixed, names, colours, mask)


def with_legend(
    image: Image.Image,
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    *masks: NDArray[np.uint8],
    size: int | None = None,
) -> Image.Image:
    """Return the image above a legend of the classes that occur in any of the masks."""
    present = sorted({index for mask in masks for index in np.unique(mask).tolist() if index < len(names)})
    if not present:
        return image
    size = size or max(13, image.width // 32)
    font, step, rim = ImageFont.load_default(size), round(1.5 * size), max(4, size // 2)
    left, top, places = rim, image.height + rim, []
    for index in present:
        label = _fit(names[index], font, image.width - step - 2 * rim)
        wide = step + int(font.getlength(label))
        if left + wide + rim > image.width and left > rim:
            left, top = rim, top + step
        places.append((left, top, label, colours[index]))
        left += wide + size
    sheet = Image.new("RGB", (image.width, top + step + rim // 2), PAPER)
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, label, colour in places:
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline=INK)
        draw.text((x + step - size // 6, y + size / 2), label, INK, font, anchor="lm")
    return sheet


def label_bars(image: Image.Image, top: Sequence[tuple[str, float]], form: str = ".1%") -> Image.Image:
    """Return the image above one bar per class, whose length is the probability; `form` is how numbers are written.

    A number below 0, as a cosine may be, has no bar.
    """
    ground = shown(image)
    size = _text_size(ground, 22)
    font, row = ImageFont.load_default(size), size + 9
    sheet = Image.new("RGB", (ground.width, ground.height + row * len(top) + 6), PAPER)
    sheet.paste(ground, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, (label, probability) in enumerate(top):
        y = ground.height + 4 + i * row
        draw.rectangle((0, y, int(max(0.0, probability) * (ground.width - 1)), y + row - 4), fill="#9ecae9")
        draw.text((6, y + 2), _fit(label, font, ground.width - 80), INK, font)
        draw.text((ground.width - 6, y + 2), f"{probability:{form}}", INK, font, anchor="ra")
    return sheet


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while font.getlength(text) > width and len(text) > 2:
        text = text[:-2] + "…"
    return text


def titled(image: Image.Image, title: str, size: int | None = None) -> Image.Image:
    """Return the image under a line of text."""
    size = size or _text_size(image, 26)
    font, tall = ImageFont.load_default(size), round(1.3 * size) + 5
    sheet = Image.new("RGB", (image.width, image.height + tall), PAPER)
    sheet.paste(image, (0, tall))
    ImageDraw.Draw(sheet).text((2, 2), _fit(title, font, image.width - 4), INK, font)
    return sheet


def beside(*images: Image.Image, gap: int = 8) -> Image.Image:
    """Return the images in one row."""
    sheet = Image.new(
        "RGB", (sum(i.width for i in images) + gap * (len(images) - 1), max(i.height for i in images)), PAPER
    )
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def below(*images: Image.Image, gap: int = 8) -> Image.Image:
    """Return the images in one column."""
    sheet = Image.new(
        "RGB", (max(i.width for i in images), sum(i.height for i in images) + gap * (len(images) - 1)), PAPER
    )
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet
