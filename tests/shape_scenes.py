"""Made pairs of pictures and captions: one coloured shape on grey ground, and what it is called."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 210), "white": (245, 245, 245)}
SHAPES = ("bar", "pole", "frame")
WORDINGS = ("a {colour} {shape}", "the {shape} is {colour}", "one {colour} {shape}")


class Scene(NamedTuple):
    """A picture (side, side, 3), its shape and colour, and the box (left, top, right, bottom) in which it lies."""

    pixels: np.ndarray
    shape: str
    colour: str
    box: tuple[int, int, int, int]


def scene(number: int, side: int = 32) -> Scene:
    """Return a picture; the same number gives the same one."""
    draw = np.random.default_rng(5000 + number)
    shape, colour = SHAPES[draw.integers(len(SHAPES))], str(draw.choice(list(COLOURS)))
    size = side * 3 // 8
    height, width = {"bar": (size // 3, size), "pole": (size, size // 3), "frame": (size, size)}[shape]
    top, left = (int(draw.integers(0, side - length + 1)) for length in (height, width))
    pixels = draw.integers(90, 150, (side, side, 3)).astype(np.uint8)
    inside = np.zeros((side, side), bool)
    inside[top : top + height, left : left + width] = True
    if shape == "frame":
        rim = size // 4
        inside[top + rim : top + height - rim, left + rim : left + width - rim] = False
    pixels[inside] = COLOURS[colour]
    return Scene(pixels, shape, colour, (left, top, left + width, top + height))


def caption(number: int, one: Scene) -> str:
    """Return what is said of a picture; the wording changes with the number."""
    return WORDINGS[number % len(WORDINGS)].format(shape=one.shape, colour=one.colour)


def pairs(folder: Path, counts: dict[str, int], side: int = 32) -> Path:
    """Write pictures and pairs.csv with so many pairs of each split; return the table."""
    (folder / "images").mkdir(parents=True)
    lines, number = [("image", "caption", "split")], 0
    for split, count in counts.items():
        for _ in range(count):
            one, name = scene(number, side), f"images/{number:04}.png"
            Image.fromarray(one.pixels).save(folder / name)
            lines.append((name, caption(number, one), split))
            number += 1
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "pairs.csv"
