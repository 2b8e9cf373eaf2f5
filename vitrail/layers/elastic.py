"""One network, many costs: input sizes and shares of kept tokens (SuperViT, Lin et al. 2022, arXiv:2205.11397)."""

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
"""The sides of the paper's token grids; other images get grids in these proportions."""

KEEPS = (0.5, 0.7)
"""The paper's shares of kept tokens, beside 1."""


class OperatingPoint(NamedTuple):
    """An operating point: the size of the input (height, width) and the share of tokens kept at each station."""

    size: tuple[int, int]
    keep: float = 1.0

    def __str__(self) -> str:
        height, width = self.size
        side = str(height) if height == width else f"{height}x{width}"
        return f"{side}px/{self.keep:g}"


def read_point(text: str) -> OperatingPoint:
    """Read a point written like 160px/0.7 or 160x224px/0.7 (height x width)."""
    found = re.fullmatch(r"(\d+)(?:[x×](\d+))?(?:px)?(?:/(\d*\.?\d+))?", text.strip())
    if not found or not 0 < float(found[3] or 1) <= 1 or int(found[1]) < 1 or int(found[2] or 1) < 1:
        raise SettingError(
            f"The operating point {text!r} cannot be read. Write input size and share of kept tokens: 160px/0.7"
        )
    return OperatingPoint((int(found[1]), int(found[2] or found[1])), float(found[3] or 1))


def points(sizes: tuple[tuple[int, int], ...], keeps: tuple[float, ...]) -> tuple[OperatingPoint, ...]:
    """Return all points of these sizes and shares, the cheap ones first."""
    return tuple(
        OperatingPoint(size, keep) for size, keep in product(sorted(set(sizes)), sorted({*keeps, 1.0}))
    )


def smaller_sizes(
    image: tuple[int, int], stride: int, sides: tuple[int, ...] = SIDES
) -> tuple[tuple[int, int], ...]:
    """Return the input sizes whose grids stand to that of `image` as `sides` stand to the last of them."""
    grid = (image[0] // stride, image[1] // stride)
    found = [
        (_part(grid[0], side, sides[-1]) * stride, _part(grid[1], side, sides[-1]) * stride)
        for side in sides[:-1]
    ]
    return tuple(size for size in dict.fromkeys(found) if size != image)


def _part(cells: int, side: int, whole: int) -> int:
    return max(1, round(cells * side / whole))


def at_size(images: Tensor, size: tuple[int, int]) -> Tensor:  # (b, c, height, width) -> (b, c, *size)
    """Return images at a point's size: bilinear with aligned corners, as the paper's networks see them."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=True)


def set_keep(network: nn.Module, keep: float) -> None:
    """Let every column of a network keep this share of its tokens; SettingError where one cannot."""
    columns = [module for module in network.modules() if isinstance(module, Column)]
    if keep < 1 and not (columns and all(_keeps(column) for column in columns)):
        raise SettingError(
            "This network needs all its tokens; only columns with a class token can leave some out. "
            "Choose a point that keeps all of them (160px/1), or train a supervit or a vit."
        )
    for column in columns:
        column.keep = keep


def can_keep(encoder: Encoder) -> bool:
    """Tell whether an encoder can leave out tokens: a column with a class token whose blocks take any tokens."""
    columns = [module for module in encoder.modules() if isinstance(module, Column)]
    return encoder.spec.prefix[:1] == ("cls",) and bool(columns) and all(map(_keeps, columns))


def can_resize(spec: FeatureSpec) -> bool:
    """Tell whether a network takes other sizes than the one it was built for."""
    return spec.sizes != "fixed"


def _keeps(column: Column) -> bool:
    return all(
        isinstance(block, PreNorm)
        and isinstance(block.attention, SelfAttention)
        and block.attention.relative is None
        and not isinstance(block.mlp, ConvMlp)  # which needs the whole grid
        for block in column
    )
