"""A mask for every query of a decoder: the branch of RF-DETR-Seg (Robinson et al. 2025, arXiv:2511.09554).

The map that the queries read is enlarged to a quarter of the input. After each layer of the decoder one more block
changes it, and the mask of a query is the product of its vector with every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE = 4
"""Input pixels that a cell of a mask spans."""

SCALE = 2.0**-4
"""Factor of the products, a power of two, so that published weights are converted without rounding.

Without it one step of a training moves a sum over the whole width, and the logits of masks leap.
"""


class Factors(NamedTuple):
    """The two factors of masks: vectors of the queries (b, q, d) and of the cells (b, d, row, col)."""

    queries: Tensor
    cells: Tensor


class MaskBlock(nn.Module):
    """A depthwise convolution, a norm and a linear layer, added to the map: (b, d, row, col) -> (b, d, row, col)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(b, d, row, col) -> (b, d, row, col)."""
        x = self.norm(self.depthwise(maps).permute(0, 2, 3, 1))
        return maps + F.gelu(self.linear(x)).permute(0, 3, 1, 2)


class MaskBranch(nn.Module):
    """The factors of the masks of a decoder with so many layers; `width` is that of the map and of the queries."""

    def __init__(self, width: int, layers: int, hidden: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MaskBlock(width) for _ in range(layers))
        self.cells = nn.Conv2d(width, width, 1)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, hidden or 4 * width), nn.GELU(), nn.Linear(hidden or 4 * width, width)
        )
        self.queries = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor, queries: Sequence[Tensor], size: tuple[int, int]) -> list[Factors]:
        """Return the factors after each layer in training, otherwise after the last one only.

        They are made from the map (b, d, row, col), the queries (b, q, d) of each layer, and the size of the input.
        """
        fine = (max(1, size[0] // FINE), max(1, size[1] // FINE))
        x = F.interpolate(maps, fine, mode="bilinear", align_corners=False)
        found = []
        for turn, (block, one) in enumerate(zip(self.blocks, queries, strict=True), 1):
            x = block(x)
            if self.training or turn == len(self.blocks):
                found.append(Factors(self.queries(one + self.feed(self.norm(one))), self.cells(x)))
        return found

    def masks(self, factors: Factors) -> Tensor:
        """Return the logits of the masks: (b, q, row, col)."""
        b, _, row, col = factors.cells.shape
        flat = torch.matmul(factors.queries, factors.cells.flatten(2))
        return SCALE * flat.view(b, -1, row, col) + self.bias
