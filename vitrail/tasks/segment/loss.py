"""The losses of segmentation: each a mean over what it counts, and nothing at pixels that are void."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return logits (b, k, row, col) at the pixels of masks of this size, in float32."""
    logits = maps.float()
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear")


def cross_entropy(
    logits: Tensor, masks: Tensor, void: int, weights: Tensor | None, smoothing: float
) -> Tensor:
    """Return the sum over pixels that count of their weighted cross entropy."""
    return F.cross_entropy(
        logits, masks, weights, ignore_index=void, reduction="sum", label_smoothing=smoothing
    )


def pixel_weight(masks: Tensor, void: int, weights: Tensor | None) -> Tensor:
    """Return over what weighted cross entropy is a mean: the weights of the pixels that count, summed."""
    seen = masks[masks != void]
    return (
        seen.new_tensor(len(seen), dtype=torch.float64) if weights is None else weights[seen].double().sum()
    )


def present(masks: Tensor, classes: int, void: int) -> Tensor:
    """Return which classes each mask (b, height, width) shows: bool (b, k)."""
    shown = torch.zeros(len(masks), classes + 1, dtype=torch.bool, device=masks.device)
    flat = torch.where(masks == void, classes, masks).flatten(1)
    return shown.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))[:, :classes]


def dice(logits: Tensor, masks: Tensor, void: int) -> Tensor:
    """Return the sum over images and the classes that each shows of 1 − Dice (Milletari et al., arXiv:1606.04797)."""
    k = logits.shape[1]
    counts = (masks != void)[:, None]
    p = logits.softmax(1).masked_fill(~counts, 0.0)
    truth = F.one_hot(torch.where(masks == void, 0, masks), k).permute(0, 3, 1, 2).to(p.dtype) * counts
    overlap, both = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    lost = 1 - (2 * overlap + 1) / (both + 1)
    return lost[present(masks, k, void)].sum()


def lovasz(logits: Tensor, masks: Tensor, void: int) -> Tensor:
    """Return the sum over images and their classes of the Lovász extension of 1 − IoU (arXiv:1705.08790, eq. 11)."""
    total = logits.new_zeros(())
    for one, mask in zip(logits.softmax(1), masks, strict=True):
        seen = mask != void
        p, truth = one[:, seen], mask[seen]
        for place in truth.unique().tolist():
            there = (truth == place).to(p.dtype)
            errors, order = (there - p[place]).abs().sort(descending=True)
            total = total + errors @ _lovasz_gradient(there[order])
    return total


def _lovasz_gradient(there: Tensor) -> Tensor:
    """Return how much the Jaccard loss grows with each further error, the largest first (algorithm 1)."""
    whole = there.sum()
    jaccard = 1 - (whole - there.cumsum(0)) / (whole + (1 - there).cumsum(0))
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
