"""The losses of segmentation. Void pixels do not count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return logits (b, k, row, col) resized to the masks, in float32."""
    logits = maps.float()
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear")


def cross_entropy(
    logits: Tensor, masks: Tensor, void: int, weights: Tensor | None, smoothing: float
) -> Tensor:
    """Return the sum of the weighted cross entropy over the pixels that are not void."""
    return F.cross_entropy(
        logits, masks, weights, ignore_index=void, reduction="sum", label_smoothing=smoothing
    )


def pixel_weight(masks: Tensor, void: int, weights: Tensor | None) -> Tensor:
    """Return the denominator of weighted cross entropy: the summed weights of the pixels that are not void."""
    places = masks[masks != void]
    if weights is None:
        return places.new_tensor(len(places), dtype=torch.float64)
    return weights[places].double().sum()


def present(masks: Tensor, classes: int, void: int) -> Tensor:
    """Return which classes each mask (b, height, width) contains: bool (b, k)."""
    flags = torch.zeros(len(masks), classes + 1, dtype=torch.bool, device=masks.device)
    flat = torch.where(masks == void, classes, masks).flatten(1)
    return flags.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))[:, :classes]


def dice(logits: Tensor, masks: Tensor, void: int) -> Tensor:
    """Return the sum of 1 − Dice over images and the classes in each (Milletari et al., arXiv:1606.04797)."""
    k = logits.shape[1]
    counts = (masks != void)[:, None]
    p = logits.softmax(1).masked_fill(~counts, 0.0)
    truth = F.one_hot(torch.where(masks == void, 0, masks), k).permute(0, 3, 1, 2).to(p.dtype) * counts
    overlap, both = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    lost = 1 - (2 * overlap + 1) / (both + 1)
    return lost[present(masks, k, void)].sum()


def lovasz(logits: Tensor, masks: Tensor, void: int) -> Tensor:
    """Return the sum of the Lovász extension of 1 − IoU over images and their classes (arXiv:1705.08790, eq. 11)."""
    total = logits.new_zeros(())
    for one, mask in zip(logits.softmax(1), masks, strict=True):
        counts = mask != void
        p, truth = one[:, counts], mask[counts]
        for place in truth.unique().tolist():
            target = (truth == place).to(p.dtype)
            errors, order = (target - p[place]).abs().sort(descending=True)
            total = total + errors @ _lovasz_gradient(target[order])
    return total


def _lovasz_gradient(target: Tensor) -> Tensor:
    """Return the growth of the Jaccard loss with each error, the largest error first (algorithm 1)."""
    whole = target.sum()
    jaccard = 1 - (whole - target.cumsum(0)) / (whole + (1 - target).cumsum(0))
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
