"""From several maps of an encoder to one map of another width: the projector of LW-DETR and RF-DETR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.pixel_map import quarters
from vitrail.layers.tokens import Features, FeatureSpec

STRIDE = 16
"""Pixels that a cell of the map spans, about: of a pyramid the level nearest to it sets the grid."""

DEPTH = 3
"""Number of pairs of convolutions."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map: (b, d, row, col) -> (b, d, row, col)."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, d, row, col) -> (b, d, row, col)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Convolution(nn.Sequential):
    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(width, out, kernel, padding=kernel // 2, bias=False),
            ChannelNorm(out, eps=1e-6),
            nn.SiLU(),
        )


class Projector(nn.Module):
    """Features -> (b, width, row, col): a C2f block with layer norms (Chen et al. 2024, arXiv:2406.03459, §3.2).

    The maps, `taps` of a column or the stages of a pyramid, are stacked; of what a first layer makes of them one half
    goes through `DEPTH` pairs of convolutions, and all intermediate maps are joined.
    """

    def __init__(self, spec: FeatureSpec, width: int) -> None:
        super().__init__()
        pyramid = len(spec.widths) > 1
        self.taps = () if pyramid else spec.taps or quarters(spec.depth)
        self.levels = bool(pyramid or self.taps)
        widths = spec.widths if pyramid else (spec.width,) * max(1, len(self.taps))
        self.place = min(range(len(widths)), key=lambda i: abs(spec.strides[i] - STRIDE)) if pyramid else 0
        half = width // 2
        self.enter = _Convolution(sum(widths), 2 * half, 1)
        self.pairs = nn.ModuleList(
            nn.Sequential(_Convolution(half, half, 3), _Convolution(half, half, 3)) for _ in range(DEPTH)
        )
        self.join = _Convolution((2 + DEPTH) * half, width, 1)
        self.norm = ChannelNorm(width, eps=1e-6)

    def forward(self, features: Features) -> Tensor:
        """Features -> (b, width, row, col)."""
        maps: Sequence[Tensor] = features.levels if self.levels else (features.tokens.map(),)
        grid = maps[self.place].shape[-2:]
        same = [one if one.shape[-2:] == grid else F.interpolate(one, grid, mode="bilinear") for one in maps]
        parts = list(self.enter(torch.cat(same, 1)).chunk(2, 1))
        for pair in self.pairs:
            parts.append(pair(parts[-1]))
        out: Tensor = self.norm(self.join(torch.cat(parts, 1)))
        return out
