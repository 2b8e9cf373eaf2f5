"""Small images and folders of them, made on the spot."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def scene(seed: int, size: tuple[int, int] = (53, 71), channels: int = 3) -> np.ndarray[Any, Any]:
    """Return a smooth image of its own (height, width, channels): no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze(-1) if channels == 1 else coarse)
    smooth = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return smooth[..., None] if channels == 1 else smooth


def encode(image: np.ndarray[Any, Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def put(file: Path, data: bytes | str) -> Path:
    """Write a file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        file.write_text(data, encoding="utf-8")
    else:
        file.write_bytes(data)
    return file


def folders(root: Path, counts: dict[str, int], size: tuple[int, int] = (53, 71), seed: int = 0) -> Path:
    """Write class folders: {"train/cat": 3} makes three images of train/cat, all different."""
    number = seed * 100_000
    for folder, many in counts.items():
        for i in range(many):
            put(root / folder / f"{i}.png", encode(scene(number, size)))
            number += 1
    return root
