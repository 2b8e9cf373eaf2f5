"""The loss of masks: cross entropy and Dice of every matched query, on all cells of its map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.mask_branch import SCALE
from vitrail.tasks.set_matching import Pairs

INSIDE = 0.5
"""Share of the weight of the cross entropy that lies in the box of the object: else small objects hardly count."""


class MaskFactors(NamedTuple):
    """What the masks of one image and one layer are made of: queries (q, d), cells (d, row, col), bias ().

    The logits are `scale` times their product, plus the bias.
    """

    queries: Tensor
    cells: Tensor
    bias: Tensor
    scale: float = SCALE


class MaskSums(NamedTuple):
    """The sums of the losses over matched queries, before they are divided by the number of objects."""

    pixels: Tensor
    dice: Tensor


def mask_sums(factors: MaskFactors, pairs: Pairs, cover: Tensor, boxes: Tensor) -> MaskSums:
    """Return the losses of one image and layer.

    `cover` (n, row, col) is the share of each cell that an object covers, `boxes` (n, 4) are centre and sides in shares
    of the input. The published network compares some thousand drawn points of each mask (arXiv:2511.09554); here all
    cells are compared with the share that is covered, which needs no drawing.
    """
    with torch.autocast(factors.cells.device.type, enabled=False):
        queries, cells = factors.queries.float()[pairs.predictions], factors.cells.float()
        logits = factors.scale * (queries @ cells.flatten(1)) + factors.bias.float()
        target = _fitted(cover, (cells.shape[-2], cells.shape[-1]))[pairs.objects]
        weight = _weights(boxes, (cells.shape[-2], cells.shape[-1]))[pairs.objects]
        flat = target.flatten(1)
        entropy = F.binary_cross_entropy_with_logits(logits, flat, reduction="none")
        p = logits.sigmoid()
        dice = 1 - (2 * (p * flat).sum(1) + 1) / (p.sum(1) + flat.sum(1) + 1)
        return MaskSums((entropy * weight).sum(), dice.sum())


def _fitted(cover: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the shares (n, row, col) on another grid, if theirs differs by the rest of a division."""
    if tuple(cover.shape[-2:]) == grid:
        return cover
    return F.interpolate(cover[None], grid, mode="bilinear", align_corners=False)[0]


def _weights(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the weights of the cells for each object, with sum 1: (n, row·col)."""
    rows, cols = grid
    y = (torch.arange(rows, device=boxes.device) + 0.5) / rows
    x = (torch.arange(cols, device=boxes.device) + 0.5) / cols
    # One cell more on each side: the border of the object is where its mask is decided.
    down = (y[None] - boxes[:, 1:2]).abs() <= boxes[:, 3:4] / 2 + 1 / rows
    across = (x[None] - boxes[:, 0:1]).abs() <= boxes[:, 2:3] / 2 + 1 / cols
    inside = (down[:, :, None] & across[:, None]).flatten(1).float()
    within = inside.sum(1, keepdim=True)
    outside = (1 - inside).sum(1, keepdim=True)
    share = torch.where(outside > 0, INSIDE, 1.0)
    return inside * share / within.clamp(min=1) + (1 - inside) * (1 - share) / outside.clamp(min=1)
