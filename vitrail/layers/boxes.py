"""Boxes as tensors: their two forms, and how much they overlap."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 8.0
"""Largest exponent of a side: a box never becomes infinite."""


def to_corners(boxes: Tensor) -> Tensor:
    """Return boxes (…, 4) of centre and sides as corners left, top, right, bottom: (…, 4)."""
    centre, sides = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - sides / 2, centre + sides / 2], -1)


def to_centre(boxes: Tensor) -> Tensor:
    """Return boxes (…, 4) of corners as centre x, centre y, width, height: (…, 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def moved(references: Tensor, change: Tensor) -> Tensor:
    """Return boxes (…, 4), centre and sides, changed relative to themselves: (…, 4), in float32.

    The centre moves by shares of the sides, and the sides are multiplied by an exponential (Lin et al. 2023,
    arXiv:2308.01904, §3.2), so that a change means the same for small and large boxes.
    """
    centre, sides = references.float()[..., :2], references.float()[..., 2:]
    shift, growth = change.float()[..., :2], change.float()[..., 2:]
    return torch.cat([centre + shift * sides, sides * growth.clamp(max=LARGEST).exp()], -1)


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU (Rezatofighi et al. 2019, arXiv:1902.09630) of corners that broadcast: (…,)."""
    area, other_area = (_area(boxes) for boxes in (one, other))
    shared = torch.cat(
        [torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])], -1
    )
    around = torch.cat(
        [torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])], -1
    )
    common = _area(shared)
    union = (area + other_area - common).clamp(min=1e-12)
    whole = _area(around).clamp(min=1e-12)
    iou = common / union
    return iou, iou - (whole - union) / whole


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Return the extents of masks, bool (…, row, col), as centre and sides in shares of the map: (…, 4).

    The box of an empty mask is 0.
    """
    spans = []
    for axis in (-2, -1):
        present = masks.any(axis).int()  # columns, then rows
        count = present.shape[-1]
        first = present.argmax(-1)
        end = count - present.flip(-1).argmax(-1)
        there = present.amax(-1)
        spans.append((first * there / count, end * there / count))
    (left, right), (top, bottom) = spans
    return to_centre(torch.stack([left, top, right, bottom], -1).float())
