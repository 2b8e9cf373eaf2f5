"""From features to fine maps for things of a few pixels; the heads of dense tasks use it.

For a plain column the tokens after four of its blocks are summed and upsampled to about a quarter of the input (like
the ScaleBlock of EoMT, Kerssies et al. 2025, arXiv:2503.19108, §3.1); for a pyramid its stages are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.layers.weight_init import lecun

FINE = 4
"""Approximate number of input pixels that a cell of the map spans."""

TAPS = 4
"""Number of blocks of a column that are read."""


class ScaleBlock(nn.Module):
    """Double the rows and columns: (b, d, row, col) -> (b, e, 2·row, 2·col).

    The transposed convolution, whose stride is its kernel, is computed as a matrix product (see `PatchEmbed`).
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * out)
        self.mix = nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False)
        self.norm = nn.LayerNorm(out)
        # The four cells of a token start equal; otherwise a new head draws a checkerboard.
        with torch.no_grad():
            for values in (self.expand.weight, self.expand.bias):
                values.copy_(values[:out].repeat(4, *[1] * (values.ndim - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d, row, col) -> (b, e, 2·row, 2·col)."""
        x = rearrange(
            self.expand(x.permute(0, 2, 3, 1)), "b row col (p q e) -> b e (row p) (col q)", p=2, q=2
        )
        x = self.mix(F.gelu(x))
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class ConvStem(nn.Module):
    """Fine details that patches lose, such as thin things: two convolutions of the image to a quarter of its size.

    (b, channels, height, width) -> (b, d, height / 4, width / 4).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width // 2, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(width // 2, width, 3, 2, 1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in (width // 2, width))
        for layer in (self.first, self.second):
            lecun(layer)

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) -> (b, d, height / 4, width / 4)."""
        x = F.gelu(self.norms[0](self.first(images)))
        out: Tensor = F.gelu(self.norms[1](self.second(x)))
        return out


class PixelMap(nn.Module):
    """Features -> (b, `out`, row, col), with a cell for about every 4 pixels, covering the whole input.

    `taps` are the blocks of a column that are read. Of a pyramid all stages from stride 4 are read, and all of them if
    the first has a cell for every pixel, which is then the size of the map; of other networks the output tokens.
    """

    def __init__(self, spec: FeatureSpec, width: int) -> None:
        super().__init__()
        pyramid = len(spec.widths) > 1
        self.taps = () if pyramid else spec.taps or quarters(spec.depth)
        self.levels = bool(pyramid or self.taps)
        skipped = pyramid and spec.strides[0] > 1  # a stage at half of the pixels costs more than it shows
        self.first = next((i for i, stride in enumerate(spec.strides) if stride >= FINE), 0) if skipped else 0
        widths = spec.widths[self.first :] if pyramid else (spec.width,) * max(1, len(self.taps))
        self.norms = nn.ModuleList(nn.LayerNorm(level) for level in widths)
        self.project = nn.ModuleList(nn.Linear(level, width) for level in widths)
        stride = spec.strides[self.first] if pyramid else spec.strides[-1]
        doublings = max(0, min(3, round(log2(stride / FINE))))
        sizes = [max(32, width >> i) for i in range(doublings)] if doublings else []
        self.scale = nn.ModuleList(
            ScaleBlock(before, after) for before, after in zip([width, *sizes], sizes, strict=False)
        )
        self.out = sizes[-1] if sizes else width
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.rim = spec.overlap_margin
        for layer in self.project:
            assert isinstance(layer, nn.Linear)
            lecun(layer)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features of an input of `size` pixels -> (b, out, row, col)."""
        maps = features.levels[self.first :] if self.levels else (features.tokens.map(),)
        x = self._summed(maps)
        x = x + self.mix(F.gelu(x))
        for block in self.scale:
            x = block(x)
        return extend_to_border(x, size, self.rim) if self.rim else x

    def _summed(self, maps: Sequence[Tensor]) -> Tensor:
        grid = maps[0].shape[-2:]
        x: Tensor | None = None
        for level, norm, project in zip(maps, self.norms, self.project, strict=True):
            projected = project(norm(level.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
            if projected.shape[-2:] != grid:
                projected = F.interpolate(projected, grid, mode="bilinear")
            x = projected if x is None else x + projected
        assert x is not None
        return x


def quarters(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of a column, counted from 1; () for a depth of 0."""
    if not depth:
        return ()
    return tuple(sorted({max(1, depth * i // TAPS) for i in range(1, TAPS + 1)}))


def extend_to_border(x: Tensor, size: tuple[int, int], rim: float) -> Tensor:
    """Resample a map to cover the whole input; the outermost cells of `x` end `rim` pixels before the border."""
    for axis, pixels in ((-2, size[0]), (-1, size[1])):
        cells = x.shape[axis]
        many = round(pixels * cells / (pixels - 2 * rim))
        at = (torch.arange(many, device=x.device) + 0.5) * (pixels / many)
        place = ((at - rim) / (pixels - 2 * rim) * cells - 0.5).clamp(0, cells - 1)
        low = place.floor().long().clamp(max=max(0, cells - 2))
        part = (place - low).to(x.dtype)
        part = part[:, None] if axis == -2 else part
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=cells - 1)), part)
    return x
