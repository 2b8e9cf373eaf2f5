"""The decoder of masked autoencoders: He et al. 2022, arXiv:2111.06377, §3; and patches as rows of pixels.

The encoder has seen some patches only. Their tokens are projected, a learned mask token stands at every other place,
positions are added, and a small transformer predicts the pixels of every patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm
from vitrail.layers.encoder import Column
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.patch_embedding import check_size
from vitrail.layers.position import grid_sines
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens
from vitrail.layers.weight_init import as_in_mae


class MaskedDecoder(Head):
    """Features of the patches that were seen -> `patches` (b, row·col, patch²·channels), the pixels of all patches.

    The grid may have any size, because the positions are computed for it (`grid_sines`). Prefix tokens have no position
    and are no part of the output. Pixels are in the order of `patchify`.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        patch: int,
        channels: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        *,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        grid_sines(width, (1, 1))  # a width that has no positions is refused now, not in the first step
        self.embed = nn.Linear(spec.width, width)
        self.mask = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = Column(
            PreNorm(width, SelfAttention(width, heads), Mlp(width, 4 * width), eps=eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.predict = nn.Linear(width, patch * patch * channels)
        as_in_mae(self)
        nn.init.normal_(self.mask, std=0.02)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, prefix + seen, d) -> patches (b, row·col, patch²·channels)."""
        return {"patches": self.predict(self.decoded(features.tokens).patches)}

    def decoded(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Return the output tokens of the decoder, (b, prefix + row·col, width); `record` collects its attention."""
        out: Tokens = self.blocks(self.filled(tokens), record)
        return out.with_x(self.norm(out.x))

    def filled(self, tokens: Tokens) -> Tokens:
        """Return the input tokens of the decoder, with mask tokens and positions: (b, prefix + row·col, width)."""
        x = self.embed(tokens.x).to(self.mask.dtype)  # in mixed precision as exact as the positions
        front, seen = x[:, : tokens.prefix], x[:, tokens.prefix :]
        row, col = tokens.grid[-2:]
        if tokens.kept is not None:
            at = tokens.kept[..., None].expand(-1, -1, x.shape[-1])
            seen = self.mask.expand(len(x), prod(tokens.grid), -1).scatter(1, at, seen)
        seen = seen + grid_sines(x.shape[-1], (row, col)).to(x)
        return Tokens(torch.cat([front, seen], 1), tokens.grid, tokens.prefix)


def patchify(images: Tensor, patch: int) -> Tensor:  # (b, c, height, width) -> (b, row·col, patch²·c)
    """Return the patches in raster order, their pixels row by row and each pixel's channels side by side.

    SettingError for images that the patches do not tile.
    """
    check_size(images, patch)
    return rearrange(images, "b c (row ph) (col pw) -> b (row col) (ph pw c)", ph=patch, pw=patch)


def unpatchify(patches: Tensor, grid: tuple[int, int], channels: int) -> Tensor:
    """Return the images of `patchify`: (b, row·col, patch²·channels) -> (b, channels, height, width)."""
    patch = round((patches.shape[-1] / channels) ** 0.5)
    shape = {"row": grid[0], "col": grid[1], "ph": patch, "pw": patch}
    return rearrange(patches, "b (row col) (ph pw c) -> b c (row ph) (col pw)", **shape)
