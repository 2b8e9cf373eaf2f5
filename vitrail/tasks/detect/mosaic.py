"""Mosaics: four images of a batch in one input, for more objects of more sizes (arXiv:2004.10934, §3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.data.batch import Batch
from vitrail.data.instances import CELL

MIDDLE = (0.4, 0.6)
"""Where the four images meet, about, in shares of the sides: between two cells of masks."""

TrueTensors = tuple[Tensor, ...]
"""Boxes (n, 4), classes (n,), crowds (m, 4); of objects with masks also their cover (n, row, col)."""


def mosaic(batch: Batch[Any], rng: np.random.Generator, share: float) -> Batch[Any]:
    """Return the batch with this share of its inputs replaced by mosaics of four whole images, with their objects.

    Boxes are (n, 4), centre and sides in shares of the input.
    """
    images, targets = batch.images.clone(), list(batch.targets)
    for place in range(len(batch)):
        if rng.random() >= share:
            continue
        others = [place, *rng.integers(len(batch), size=3).tolist()]
        y, x = rng.uniform(*MIDDLE, size=2)
        images[place], targets[place] = _one(batch, others, (y, x))
    return batch.with_images(images, targets)


def _one(batch: Batch[Any], others: list[int], middle: tuple[float, float]) -> tuple[Tensor, TrueTensors]:
    """Return one mosaic (channels, height, width) and its objects."""
    height, width = batch.images.shape[-2:]
    row, col = (
        CELL * round(side * share / CELL) for side, share in zip((height, width), middle, strict=True)
    )
    image, parts = torch.empty_like(batch.images[0]), []
    spans = [(0, row, 0, col), (0, row, col, width), (row, height, 0, col), (row, height, col, width)]
    for other, (top, bottom, left, right) in zip(others, spans, strict=True):
        size = (bottom - top, right - left)
        shown = F.interpolate(batch.images[other][None], size, mode="bilinear", antialias=True)[0]
        image[:, top:bottom, left:right] = shown
        scale = shown.new_tensor([size[1] / width, size[0] / height] * 2)
        shift = shown.new_tensor([left / width, top / height, 0, 0])
        boxes, kinds, crowds, *cover = batch.targets[other]
        place = (top / height, bottom / height, left / width, right / width)
        moved = [_in_part(one, place) for one in cover]
        parts.append((boxes * scale + shift, kinds, crowds * scale + shift, *moved))
    return image, tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _in_part(cover: Tensor, place: tuple[float, float, float, float]) -> Tensor:
    """Return the cover of objects (n, row, col) in a part of the input: top, bottom, left, right in shares."""
    n, rows, cols = cover.shape
    top, bottom = (round(share * rows) for share in place[:2])
    left, right = (round(share * cols) for share in place[2:])
    moved = cover.new_zeros(n, rows, cols)
    if n:
        size = (bottom - top, right - left)
        small = F.interpolate(cover[None].float(), size, mode="bilinear", antialias=True)[0]
        moved[:, top:bottom, left:right] = small.round().to(cover.dtype)
    return moved
