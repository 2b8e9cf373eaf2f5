"""What flows through a network: tokens, features, and the truth a network tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Attention = Literal["none", "softmax", "linear", "opaque"]
Pool = Literal["cls", "mean", "cls_mean", "attention", "own"]


class Tokens(NamedTuple):
    """A sequence that knows its grid: prefix tokens first, then the patches in raster order."""

    x: Tensor  # (b, prefix + prod(grid), d)
    grid: tuple[int, ...] = ()  # (row, col) or (t, row, col); empty for text and queries
    prefix: int = 0  # class, distillation and register tokens in front
    kept: Tensor | None = None  # (b, patches) their places on the grid, where not all are left

    def with_x(self, x: Tensor) -> Tokens:
        """Return the same grid and prefix with other vectors."""  # (b, n, d) -> Tokens
        return self._replace(x=x)

    @property
    def patches(self) -> Tensor:
        """The tokens behind the prefix: (b, prod(grid), d)."""
        return self.x[:, self.prefix :]

    def only(self, chosen: Tensor) -> Tokens:
        """Return the prefix and the patches of these turns (b, m), in their order; they keep their places."""
        patches = self.patches.gather(1, chosen[..., None].expand(-1, -1, self.x.shape[-1]))
        kept = chosen if self.kept is None else self.kept.gather(1, chosen)
        return Tokens(torch.cat([self.x[:, : self.prefix], patches], 1), self.grid, self.prefix, kept)

    def map(self) -> Tensor:
        """Return the patches as an image: (b, d, *grid), zero where a token was left out."""
        b, n, d = self.patches.shape
        if self.kept is not None:
            at = self.kept[..., None].expand(-1, -1, d)
            whole = self.patches.new_zeros(b, prod(self.grid), d).scatter(1, at, self.patches)
            return whole.transpose(1, 2).reshape(b, d, *self.grid)
        assert n == prod(self.grid), f"{n} patch tokens do not fill the grid {self.grid}"
        return self.patches.transpose(1, 2).reshape(b, d, *self.grid)


class Features(NamedTuple):
    """What every encoder returns, convolutional networks included."""

    tokens: Tokens
    levels: tuple[
        Tensor, ...
    ] = ()  # (b, d_i, row_i, col_i), coarse last; of a column only those that were tapped
    pooled: Tensor | None = None  # (b, d): only from networks that pool in a way of their own


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What an encoder says of itself, so that heads and explainers need not know which one it is.

    `width` is the width of the tokens, `pooled_width` that of `Features.pooled` (0: none); `strides` are the
    pixels a cell of each level spans, coarse last (a plain column has one); `attention` says what a recorder
    gets: softmax rows, rows of a linear kind (which need not sum to 1), nothing (`none`), or attention that
    cannot be seen (`opaque`); `blocks` counts the attention calls of one forward; `sizes` names the image
    sizes that fit (`any` that the strides tile, `every` one, or `fixed` where only the built size does);
    `dense` says that its published classifiers read every token and not the pooled vector alone; `tolerance`
    is how far a recorded forward may lie from another; `overlap_margin` counts the pixels outside the outermost
    cells on each side, where patches overlap. `widths` are those of the levels that a pyramid gives, coarse last;
    of a column any block may be tapped instead, of which there are `depth` (0: none). `channels` are those of images.
    """

    width: int
    strides: tuple[int, ...]
    prefix: tuple[str, ...] = ()
    attention: Attention = "none"
    blocks: int = 0
    pool: Pool = "mean"
    pooled_width: int = 0
    sizes: Literal["any", "every", "fixed"] = "any"
    dense: bool = False
    tolerance: float = 2e-6
    overlap_margin: float = 0.0
    widths: tuple[int, ...] = ()
    depth: int = 0
    channels: int = 3

    @property
    def shows_attention(self) -> bool:
        """Whether a recorder gets attention to look at."""
        return self.attention in {"softmax", "linear"}
