"""Elastic networks: one network for several costs, by input size and kept tokens (SuperViT, arXiv:2205.11397)."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import ConvMlp, PreNorm
from vitrail.layers.encoder import Column, Encoder
from vitrail.layers.tokens import FeatureSpec

SIDES = (8, 10, 12, 14)
"""The sides of the token grids in the paper; for other image sizes the grids have the same proportions."""

KEEPS = (0.5, 0.7)
"""The shares of kept tokens in the paper, besides 1."""


class OperatingPoint(NamedTuple):
    """An operating point: the input size (height, width) and the share of tokens that each station keeps."""

    size: tuple[int, int]
    keep: float = 1.0

    def __str__(self) -> str:
        height, width = self.size
        side = str(height) if height == width else f"{height}x{width}"
        return f"{side}px/{self.keep:g}"


def read_point(text: str) -> OperatingPoint:
    """Parse an operating point such as 160px/0.7 or 160x224px/0.7 (height x width)."""
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?(?:px)?(?:/(\d*\.?\d+))?", text.strip())
    if not match or not 0 < float(match[3] or 1) <= 1 or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise SettingError(
            f"The operating point {text!r} cannot be read. Write input size and share of kept tokens: 160px/0.7"
        )
    return OperatingPoint((int(match[1]), int(match[2] or match[1])), float(match[3] or 1))


def points(sizes: tuple[tuple[int, int], ...], keeps: tuple[float, ...]) -> tuple[OperatingPoint, ...]:
    """Return all operating points of these sizes and shares, the smallest first."""
    return tuple(
        OperatingPoint(size, keep) for size, keep in product(sorted(set(sizes)), sorted({*keeps, 1.0}))
    )


def smaller_sizes(
    image: tuple[int, int], stride: int, sides: tuple[int, ...] = SIDES
) -> tuple[tuple[int, int], ...]:
    """Return smaller input sizes: the grid of `image` is scaled by each of `sides` divided by the last one."""
    grid = (image[0] // stride, image[1] // stride)
    sizes = [
        (_part(grid[0], side, sides[-1]) * stride, _part(grid[1], side, sides[-1]) * stride)
        for side in sides[:-1]
    ]
    return tuple(size for size in dict.fromkeys(sizes) if size != image)


def _part(cells: int, side: int, whole: int) -> int:
    return max(1, round(cells * side / whole))


def at_size(images: Tensor, size: tuple[int, int]) -> Tensor:  # (b, c, height, width) -> (b, c, *size)
    """Resize images to the size of an operating point: bilinear with aligned corners, as in the paper."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=True)


def set_keep(network: nn.Module, keep: float) -> None:
    """Set the share of tokens that every column of a network keeps. SettingError if one does not support it."""
    columns = [module for module in network.modules() if isinstance(module, Column)]
    if keep < 1 and not (columns and all(_keeps(column) for column in columns)):
        raise SettingError(
            "This network needs all its tokens; only columns with a class token can drop some. "
            "Choose an operating point that keeps all of them (160px/1), or train a supervit or a vit."
        )
    for column in columns:
        column.keep = keep


def can_keep(encoder: Encoder) -> bool:
    """Tell whether an encoder can drop tokens: a column with a class token whose blocks accept any set of tokens."""
    columns = [module for module in encoder.modules() if isinstance(module, Column)]
    return encoder.spec.prefix[:1] == ("cls",) and bool(columns) and all(map(_keeps, columns))


def can_resize(spec: FeatureSpec) -> bool:
    """Tell whether a network accepts other sizes than the one it was built for."""
    return spec.sizes != "fixed"


def _keeps(column: Column) -> bool:
    return all(
        isinstance(block, PreNorm)
        and isinstance(block.attention, SelfAttention)
        and block.attention.relative is None
        and not isinstance(block.mlp, ConvMlp)  # it needs the whole grid
        for block in column
    )
