"""Features of pixels from many bands: convolutions along the bands, then over pixels with one step down and up.

Jamali et al. 2023, WetMapFormer (`vitrail.models.wetmapformer`). The bands of a pixel, and its products with kernels,
are the same for all windows that hold it, so `windows` computes them once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.padded_windows import Padding, convolve_windows, tap_products

FILTERS = (16, 32)
"""Filters of the two convolutions along the bands."""

INNER = 32
"""Channels of the extractor after the bands."""

AT_ONCE = 512
"""Windows whose maps are in memory at the same time."""


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel, then one over channels: (b, c, row, col) -> (b, d, row, col)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.mix = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, row, col) -> (b, d, row, col)."""
        out: Tensor = self.mix(self.near(x))
        return out


class Decoded(NamedTuple):
    """What the extractor has at half of the resolution: the decoded map, and the one that goes around the decoder."""

    deep: Tensor  # (b, INNER, row / 2, col / 2)
    around: Tensor  # (b, INNER, row / 2, col / 2)


class BandExtractor(nn.Module):
    """From images (b, channels, height, width) to maps of the same size, (b, INNER, height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few, many = FILTERS
        self.narrow = nn.Conv2d(1, few, (3, 1), padding=(1, 0))
        self.wide = nn.Conv2d(few, many, (5, 1), padding=(2, 0))
        self.norm = nn.BatchNorm2d(many * channels, eps=1e-3)
        self.first = Separable(many * channels, INNER)
        self.second = Separable(INNER, INNER)
        self.skip = nn.Conv2d(many * channels, INNER, 3, 2)  # padded in `forward`
        self.decode1, self.decode2 = (nn.Conv2d(INNER, INNER, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm2d(INNER, eps=1e-3) for _ in range(2))
        self.merge = nn.Conv2d(INNER, INNER, 3, padding=1)

    def bands(self, images: Tensor) -> Tensor:
        """Convolve along the bands of each pixel: (b, channels, height, width) -> (b, 32·channels, height, width)."""
        b, channels, height, width = images.shape
        x = images.reshape(b, 1, channels, height * width)
        x = F.relu(self.wide(F.relu(self.narrow(x))))  # (b, filters, bands, pixels)
        # The band is the slow index of the channels.
        return F.relu(self.norm(x.transpose(1, 2).reshape(b, -1, height, width)))

    def decoded(self, first: Tensor, skipped: Tensor) -> Decoded:
        """Return both maps at half of the resolution from the outputs of `first` and `skip`."""
        x = self.second(F.relu(first))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # TensorFlow's SAME: what is outside counts as nothing
        deep = F.relu(self.norm1(self.decode1(F.relu(x))))
        return Decoded(self.norm2(self.decode2(deep)), x + skipped)

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) -> (b, INNER, height, width)."""
        x = self.bands(images)
        maps = self.decoded(self.first(x), self.skip(F.pad(x, (0, 1, 0, 1))))
        deep, around = (F.interpolate(one, scale_factor=2, mode="nearest") for one in maps)
        out: Tensor = deep + self.merge(around)
        return out

    def windows(self, images: Tensor, size: tuple[int, int]) -> Iterator[Decoded]:
        """Yield the maps of all windows of `size` in raster order, some rows at a time, as in evaluation.

        The bands of a pixel, and each tap of the two convolutions of them, are computed once for all windows:
        (1, channels, height, width) -> Decoded of (windows, INNER, rows / 2, cols / 2).
        """
        x = self.bands(images).permute(0, 2, 3, 1).contiguous()
        mix = self.first.mix.weight[:, :, 0, 0]
        first = tap_products(x, torch.einsum("oc,cij->ocij", mix, self.first.near.weight[:, 0]))
        skip = tap_products(x, self.skip.weight)
        high, wide = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
        step = max(1, AT_ONCE // wide)
        for top in range(0, high, step):
            rows = slice(top, min(top + step, high) + size[0] - 1)
            near = convolve_windows(first[:, rows], size, Padding(1, 1), self.first.mix.bias)
            skipped = convolve_windows(skip[:, rows], size, Padding(2, 0), self.skip.bias)
            yield self.decoded(*(part.flatten(0, 2).permute(0, 3, 1, 2) for part in (near, skipped)))
