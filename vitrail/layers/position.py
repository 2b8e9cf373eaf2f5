"""Where a token stands: tables of learned vectors, and their fit to other grids."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.tokens import Tokens

Resize = Literal["bilinear_corners", "bicubic", "bicubic_antialias", "bilinear", "nearest"]
"""How a source stretches its position tables: Google's ViT bilinear with aligned corners; DeiT, MAE, T2T and
DINOv2 bicubic; DINOv2 with registers and timm bicubic with antialiasing; TimeSformer nearest."""


class LearnedPosition(nn.Module):
    """A learned vector for each place, added to the tokens (arXiv:2010.11929, the E_pos of eq. 1).

    The table is (1, prefix + prod(grid), d): one row for each prefix token, then the grid in raster order.
    Other grids get the table resized by `resize`; the rows of the prefix never change.
    """

    def __init__(
        self, width: int, grid: tuple[int, ...], *, prefix: int = 0, resize: Resize = "bilinear_corners"
    ) -> None:
        super().__init__()
        self.grid, self.prefix, self.resize = grid, prefix, resize
        self.table = nn.Parameter(0.02 * torch.randn(1, prefix + prod(grid), width))

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, prefix + n, d) -> the same, each with the vector of its place."""
        assert tokens.prefix == self.prefix, (
            f"the table covers {self.prefix} prefix tokens, not {tokens.prefix}"
        )
        return tokens.with_x(tokens.x + self.fitted(tokens.grid))

    def fitted(self, grid: tuple[int, ...]) -> Tensor:
        """Return the table for another grid: (1, prefix + prod(grid), d)."""
        if grid == self.grid:
            return self.table
        front, places = self.table[:, : self.prefix], self.table[:, self.prefix :]
        return torch.cat([front, resize_grid(places, self.grid, grid, mode=self.resize)], 1)


def resize_grid(
    table: Tensor, old: tuple[int, ...], new: tuple[int, ...], *, mode: Resize
) -> Tensor:  # (1, prod(old), d) -> (1, prod(new), d)
    """Stretch a table of vectors over one grid, (row, col), to another, in the convention of its source."""
    if old == new:
        return table
    grid = table.transpose(1, 2).view(1, -1, *old)  # (1, d, row, col)
    match mode:
        case "bilinear_corners":
            grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
        case "bicubic" | "bilinear":
            grid = F.interpolate(grid, new, mode=mode, align_corners=False)
        case "bicubic_antialias":
            grid = F.interpolate(grid, new, mode="bicubic", align_corners=False, antialias=True)
        case "nearest":
            grid = F.interpolate(grid, new, mode="nearest")
    return grid.flatten(2).transpose(1, 2)
