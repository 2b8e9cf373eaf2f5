"""Images of other kinds, made without any download: what a classifier should notice as "none of these"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

SIDE = 96
"""Height and width of the images, in pixels."""


def far_images(kind: str, count: int, channels: int = 3) -> list[Pixels]:
    """Return images of a kind in `KINDS`, the same on every call: uint8 (96, 96, channels)."""
    draw = np.random.default_rng([len(kind), count])
    return [_with_channels(image, channels) for image in KINDS[kind](draw, count)]


def _with_channels(image: Pixels, channels: int) -> Pixels:
    """Return grey, RGB or more channels of an RGB image."""
    if channels == 1:
        grey: Pixels = np.rint(image.mean(-1, keepdims=True)).astype(np.uint8)
        return grey
    extra = np.full((*image.shape[:2], max(0, channels - 3)), 255, np.uint8)
    every: Pixels = np.concatenate([image, extra], -1)[..., :channels]
    return every


def _digits(draw: np.random.Generator, count: int) -> list[Pixels]:
    """Return real handwritten digits, scikit-learn's copy of UCI's, white on black."""
    from PIL import Image
    from sklearn.datasets import load_digits  # the import takes half a second

    digits = load_digits().images
    chosen = digits[draw.permutation(len(digits))[:count]]
    scans = [Image.fromarray(np.rint(one * (255 / 16)).astype(np.uint8)) for one in chosen]
    return [np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")) for one in scans]


def _noise(draw: np.random.Generator, count: int) -> list[Pixels]:
    """Return independent pixels, in grains of 1 to 8 pixels, grey or coloured."""
    images = []
    for number in range(count):
        grain, bands = 2 ** (number % 4), 1 if number % 8 < 4 else 3
        cells = draw.integers(0, 256, (SIDE // grain, SIDE // grain, bands), dtype=np.uint8)
        images.append(np.broadcast_to(cells.repeat(grain, 0).repeat(grain, 1), (SIDE, SIDE, 3)))
    return images


def _textures(draw: np.random.Generator, count: int) -> list[Pixels]:
    """Return stripes, checks, rings and waves between two colours, of random width and direction."""
    rows, cols = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    images = []
    for number in range(count):
        angle, waves = draw.uniform(0, np.pi), draw.uniform(3, 16)
        along = 2 * np.pi * waves * (np.cos(angle) * cols + np.sin(angle) * rows)
        across = 2 * np.pi * waves * (np.cos(angle) * rows - np.sin(angle) * cols)
        height = (
            np.sign(np.sin(along)),
            np.sign(np.sin(along) * np.sin(across)),
            np.sin(2 * np.pi * waves * np.hypot(rows, cols)),
            np.sin(along + 2 * np.sin(across / 3)),
        )[number % 4]
        one = draw.integers(0, 256, 3)
        other = (one + 128) % 256  # contrast in every channel, and in grey
        share = (height[..., None] + 1) / 2
        images.append(np.rint(one * share + other * (1 - share)).astype(np.uint8))
    return images


KINDS: Mapping[str, Callable[[np.random.Generator, int], list[Any]]] = MappingProxyType(
    {"digits": _digits, "noise": _noise, "textures": _textures}
)
"""The kinds of far images, each with the function that makes them."""
