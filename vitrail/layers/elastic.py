"""One network for several costs: by input size, kept tokens (SuperViT, arXiv:2205.11397), merged tokens (ToMe,
arXiv:2210.09461) and the size of patches (FlexiViT, arXiv:2212.08013).
"""

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
    """An operating point: the input size (height, width) and what is done about the number of tokens.

    - `keep`: the share of tokens that each station of a column keeps.
    - `merge`: how many pairs of patches each block but the last merges.
    - `patch`: the side of a patch in pixels, if it is not that of the network; 0: the network's own.
    """

    size: tuple[int, int]
    keep: float = 1.0
    merge: int = 0
    patch: int = 0

    def __str__(self) -> str:
        height, width = self.size
        parts = [f"{height if height == width else f'{height}x{width}'}px"]
        parts += [f"patch{self.patch}"] if self.patch else []
        if self.keep < 1 or (len(parts) == 1 and not self.merge):
            parts.append(f"{self.keep:g}")
        return "/".join([*parts, *([f"merge{self.merge}"] if self.merge else [])])


POINT = re.compile(
    r"(?P<height>\d+)(?:[x×](?P<width>\d+))?(?:px)?(?:/patch(?P<patch>\d+))?(?:/(?P<keep>\d*\.?\d+))?"
    r"(?:/merge(?P<merge>\d+))?"
)


def read_point(text: str) -> OperatingPoint:
    """Parse an operating point such as 160px/0.7, 160x224px/merge8 (height x width) or 224px/patch16/merge4."""
    match = POINT.fullmatch(text.strip())
    if match:
        height = int(match["height"])
        size, keep = (height, int(match["width"] or height)), float(match["keep"] or 1)
        point = OperatingPoint(size, keep, int(match["merge"] or 0), int(match["patch"] or 0))
        if min(size) > 0 and 0 < keep <= 1:
            return point
    raise SettingError(
        f"The operating point {text!r} cannot be read. Write input size and share of kept tokens, 160px/0.7, pairs of "
        "patches that are merged in each block, 160px/merge8, or a larger patch, 224px/patch16."
    )


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
    columns = columns_of(network)
    if keep < 1 and not (columns and all(map(takes_any_tokens, columns))):
        raise SettingError(
            "This network needs all its tokens; only columns with a class token can drop some. "
            "Choose an operating point that keeps all of them (160px/1), or train a supervit or a vit."
        )
    for column in columns:
        _refuse_both(keep, column.merge)
        column.keep = keep


def set_merge(network: nn.Module, merge: int) -> None:
    """Set how many pairs of patches every block merges. SettingError if a column does not support it."""
    columns = columns_of(network)
    if merge and not (columns and all(map(takes_any_tokens, columns))):
        raise SettingError(
            f"The tokens of this network cannot be merged. {WHO_MERGES} Choose an operating point without merge."
        )
    for column in columns:
        _refuse_both(column.keep, merge)
        column.merge = merge


def _refuse_both(keep: float, merge: int) -> None:
    # Which patches of a merged token were dropped is recorded nowhere.
    if keep < 1 and merge:
        raise SettingError(
            f"A network either drops tokens or merges them, not both. Choose an operating point with {keep:g} or "
            f"with merge{merge}."
        )


WHO_MERGES = "Tokens can be merged in ViT, DeiT, DINOv2, T2T-ViT and SuperViT, without relative positions."


def columns_of(network: nn.Module) -> list[Column]:
    """Return the columns of a network."""
    return [module for module in network.modules() if isinstance(module, Column)]


def can_keep(encoder: Encoder) -> bool:
    """Tell whether an encoder can drop tokens: a column with a class token whose blocks accept any set of tokens."""
    return encoder.spec.prefix[:1] == ("cls",) and can_merge(encoder)


def can_merge(encoder: Encoder) -> bool:
    """Tell whether an encoder can merge tokens: a column whose blocks accept any set of tokens."""
    columns = columns_of(encoder)
    return bool(columns) and all(map(takes_any_tokens, columns))


def can_resize(spec: FeatureSpec) -> bool:
    """Tell whether a network accepts other sizes than the one it was built for."""
    return spec.sizes != "fixed"


def takes_any_tokens(column: Column) -> bool:
    """Tell whether the blocks of a column accept any set of tokens."""
    return all(
        isinstance(block, PreNorm)
        and isinstance(block.attention, SelfAttention)
        and block.attention.relative is None
        and block.attention.any_tokens
        and not isinstance(block.mlp, ConvMlp)  # it needs the whole grid
        for block in column
    )
