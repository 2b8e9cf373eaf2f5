"""The data types of networks: tokens, features, and the feature description of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

CLASS = "cls"
"""Name of a class token."""

Attention = Literal["none", "softmax", "linear", "opaque"]
Pool = Literal["cls", "mean", "cls_mean", "attention", "own"]


class Merged(NamedTuple):
    """Tokens that were merged: each stands for the mean of one or more patches of the grid."""

    source: Tensor  # (b, prod(grid)) for each patch of the grid, the index of its token after the prefix
    counts: Tensor  # (b, patches) for each token after the prefix, how many patches it stands for


class Tokens(NamedTuple):
    """A token sequence with its grid: prefix tokens first, then the patches in raster order."""

    x: Tensor  # (b, prefix + prod(grid), d)
    grid: tuple[int, ...] = ()  # (row, col) or (t, row, col); empty for text and queries
    prefix: int = 0  # class, distillation and register tokens in front
    kept: Tensor | None = None  # (b, patches) their indices in the grid, after tokens were dropped
    merged: Merged | None = None  # which patches each token stands for, after tokens were merged
    condition: Tensor | None = (
        None  # (b, d) of each image, which sets the norms of the blocks of some networks
    )

    def with_x(self, x: Tensor) -> Tokens:
        """Return the same grid and prefix with other vectors."""  # (b, n, d) -> Tokens
        return self._replace(x=x)

    @property
    def patches(self) -> Tensor:
        """The tokens after the prefix: (b, prod(grid), d)."""
        return self.x[:, self.prefix :]

    def only(self, chosen: Tensor) -> Tokens:
        """Return the prefix and the patches with these indices (b, m), in this order; `kept` holds their places."""
        patches = self.patches.gather(1, chosen[..., None].expand(-1, -1, self.x.shape[-1]))
        kept = chosen if self.kept is None else self.kept.gather(1, chosen)
        return Tokens(torch.cat([self.x[:, : self.prefix], patches], 1), self.grid, self.prefix, kept)

    def unmerged(self) -> Tokens:
        """Return a token for every patch of the grid: patches that were merged get the same vector."""
        if self.merged is None:
            return self
        patches = rows_at(self.patches, self.merged.source)
        return Tokens(torch.cat([self.x[:, : self.prefix], patches], 1), self.grid, self.prefix)

    def map(self) -> Tensor:
        """Return the patches as an image: (b, d, *grid), zero for dropped tokens; merged ones fill all their places."""
        if self.merged is not None:
            return self.unmerged().map()
        b, n, d = self.patches.shape
        if self.kept is not None:
            at = self.kept[..., None].expand(-1, -1, d)
            whole = self.patches.new_zeros(b, prod(self.grid), d).scatter(1, at, self.patches)
            return whole.transpose(1, 2).reshape(b, d, *self.grid)
        assert n == prod(self.grid), f"{n} patch tokens do not fill the grid {self.grid}"
        return self.patches.transpose(1, 2).reshape(b, d, *self.grid)


def rows_at(x: Tensor, index: Tensor) -> Tensor:  # (b, n, d), (b, m) -> (b, m, d)
    """Return the vectors with these indices in each image: whole rows are copied, unlike with `gather`."""
    b, n, d = x.shape
    first = torch.arange(b, device=x.device)[:, None] * n
    return x.reshape(b * n, d).index_select(0, (index + first).flatten()).view(b, -1, d)


def class_tokens(prefix: tuple[str, ...]) -> list[int]:
    """Return the places of the class tokens among prefix tokens of these names; windows have one each."""
    return [place for place, name in enumerate(prefix) if name == CLASS]


class Features(NamedTuple):
    """The output of every encoder, also of convolutional networks."""

    tokens: Tokens
    levels: tuple[
        Tensor, ...
    ] = ()  # (b, d_i, row_i, col_i), coarse last; of a column only those that were tapped
    pooled: Tensor | None = None  # (b, d): only from networks with their own pooling


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The description of an encoder's features, so that heads and explainers work with any encoder.

    - `width`: width of the tokens; `pooled_width`: width of `Features.pooled` (0: none); `pooled_patches`: whether that
      is made of the patches alone, without the prefix.
    - `strides`: pixels that a cell of each level spans, coarse last (a plain column has one level).
    - `attention`: what a recorder gets: rows of a softmax, rows of a linear attention (which need not sum to 1),
      nothing because there is no attention (`none`), or nothing because it cannot be recorded (`opaque`).
    - `blocks`: number of attention calls in a forward pass.
    - `sizes`: accepted image sizes: `any` multiple of the strides, `every` size, or `fixed` for the built size only.
    - `dense`: the published classifiers read every token, and not the pooled vector only.
    - `tolerance`: largest difference between a recorded forward pass and a normal one.
    - `overlap_margin`: pixels outside the outermost cells on each side, for patches that overlap.
    - `widths`: widths of the levels of a pyramid, coarse last; `depth`: number of blocks of a column that can be tapped
      instead (0: none).
    - `taps`: the blocks of a column whose maps its published heads read, counted from 1 (empty: the last of each
      quarter).
    - `channels`: channels of the images.
    - `frames`: the frames of the clips that it takes, (b, frames, channels, height, width); 0: it takes images.
    - `windows`: rows and columns of the grid must be multiples of this number (`unit` pixels).
    """

    width: int
    strides: tuple[int, ...]
    prefix: tuple[str, ...] = ()
    attention: Attention = "none"
    blocks: int = 0
    pool: Pool = "mean"
    pooled_width: int = 0
    pooled_patches: bool = False
    sizes: Literal["any", "every", "fixed"] = "any"
    dense: bool = False
    tolerance: float = 2e-6
    overlap_margin: float = 0.0
    widths: tuple[int, ...] = ()
    depth: int = 0
    taps: tuple[int, ...] = ()
    channels: int = 3
    windows: int = 1
    frames: int = 0

    @property
    def unit(self) -> int:
        """Both sides of an image must be a multiple of this number of pixels, for patches side by side."""
        return self.strides[-1] * self.windows

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of one input of this size: (channels, *size), of a clip with the frames in front."""
        return (self.frames, self.channels, *size) if self.frames else (self.channels, *size)

    @property
    def shows_attention(self) -> bool:
        """Whether a recorder gets attention maps."""
        return self.attention in {"softmax", "linear"}
