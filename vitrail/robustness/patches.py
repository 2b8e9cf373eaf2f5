"""Drop or shuffle squares of an image: Naseer et al. 2021, arXiv:2105.10497, §3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.seeds import derive
from vitrail.explainers.masked_images import on_pixels

Grid = tuple[int, int]
Order = NDArray[np.int64]
"""The cells of a grid in the order in which they are dropped: (row · col,)."""


def random_order(grid: Grid, image: str, seed: int) -> Order:
    """Return the cells in a random order that depends only on the seed and the id of the image."""
    draw = np.random.default_rng(derive(seed, "dropped patches", image))
    return draw.permutation(grid[0] * grid[1])


def salient_order(saliency: Tensor) -> Order:
    """Return the cells of a map (row, col), the most salient first; cells of equal value in raster order."""
    order: Order = np.argsort(-saliency.flatten().double().numpy(), kind="stable")
    return order


def dropped(images: Tensor, orders: Sequence[Order], grid: Grid, share: float) -> Tensor:
    """Return inputs (b, c, h, w) without the first `share` of their cells: these become 0, the mean colour.

    A larger share drops the cells of a smaller one, and more.
    """
    masks = torch.zeros(len(images), grid[0] * grid[1])
    for mask, order in zip(masks, orders, strict=True):
        mask[torch.from_numpy(order[: round(share * len(order))])] = 1
    covered = on_pixels(masks.view(-1, *grid), *images.shape[-2:])[:, None].to(images)
    return images.masked_fill(covered > 0, 0.0)


def shuffled(images: Tensor, ids: Sequence[str], pieces: int, seed: int) -> Tensor:
    """Return inputs (b, c, h, w) cut into pieces × pieces rectangles that changed places.

    Pixels that are left over where a side is no multiple of `pieces` stay at the lower and right border.
    """
    b, channels, height, width = images.shape
    tall, wide = height // pieces, width // pieces
    if not (tall and wide):
        return images
    cut = images[..., : tall * pieces, : wide * pieces].reshape(b, channels, pieces, tall, pieces, wide)
    cells = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    orders = [
        np.random.default_rng(derive(seed, "shuffled patches", pieces, one)).permutation(pieces**2)
        for one in ids
    ]
    order = torch.from_numpy(np.stack(orders))
    mixed = torch.stack([cell[at] for cell, at in zip(cells, order, strict=True)])
    back = mixed.view(b, pieces, pieces, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    whole = images.clone()
    whole[..., : tall * pieces, : wide * pieces] = back.reshape(b, channels, tall * pieces, wide * pieces)
    return whole
