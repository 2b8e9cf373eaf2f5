"""Made images with masks: a disc and a box on grey ground, with two rows of void on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ground", "disc", "box")
VOID = 255


def scene(number: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (height, width, 3) and its mask."""
    draw = np.random.default_rng(number)
    height, width = size
    pixels = draw.integers(100, 130, (height, width, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    y, x = np.mgrid[:height, :width]
    cy, cx, radius = draw.integers(12, height - 12), draw.integers(12, width - 12), draw.integers(6, 11)
    top, left = draw.integers(2, height - 16), draw.integers(2, width - 16)
    for place, colour, there in (
        (1, (210, 60, 50), (y - cy) ** 2 + (x - cx) ** 2 < radius**2),
        (2, (40, 80, 210), (y >= top) & (y < top + 12) & (x >= left) & (x < left + 14)),
    ):
        pixels[there], mask[there] = colour, place
    mask[:2] = VOID
    return pixels, mask


def folder(root: Path, count: int) -> Path:
    """Write so many scenes as images/ and masks/ with classes.txt."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        pixels, mask = scene(number)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root
