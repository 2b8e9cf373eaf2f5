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


def placed(tokens: Tokens, prefix: nn.Module, position: nn.Module) -> Tokens:
    """Put the prefix in front and give every token its place (arXiv:2010.11929, eq. 1).

    Tokens of (b, row·col, d) -> Tokens of (b, prefix + row·col, d). A table that has rows for the prefix is added
    behind it; any other knows patches alone and is added before.
    """
    out: Tokens = position(prefix(tokens)) if getattr(position, "prefix", 0) else prefix(position(tokens))
    return out


class SinePosition(LearnedPosition):
    """Fixed sines and cosines of a token's number, prefix included (Vaswani et al. 2017, arXiv:1706.03762, §3.5).

    Not trained, but part of the weights; other grids get the table resized, not computed anew.
    """

    def __init__(
        self, width: int, grid: tuple[int, ...], *, prefix: int = 0, resize: Resize = "bicubic"
    ) -> None:
        super().__init__(width, grid, prefix=prefix, resize=resize)
        number = torch.arange(self.table.shape[1], dtype=torch.float64)[:, None]
        channel = torch.arange(width, dtype=torch.float64)
        angle = number / 10000 ** (2 * (channel // 2) / width)
        table = torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]
        self.table = nn.Parameter(table, requires_grad=False)


class GridPosition(nn.Module):
    """A learned half vector for each row and one for each column, side by side (arXiv:2010.11929, table 8).

    Only patches have a place, (row, col); other grids get both tables resized. `width` must be even.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.02 * torch.randn(1, grid[0], width // 2))
        self.cols = nn.Parameter(0.02 * torch.randn(1, grid[1], width // 2))

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, row·col, d), without prefix -> the same, each with the vector of its place."""
        assert tokens.prefix == 0, "rows and columns are places of patches"
        row, col = tokens.grid
        rows, cols = (
            resize_grid(table, (table.shape[1], 1), (side, 1), mode="bilinear_corners")
            for table, side in ((self.rows, row), (self.cols, col))
        )
        rows, cols = rows[:, :, None].expand(-1, -1, col, -1), cols[:, None].expand(-1, row, -1, -1)
        return tokens.with_x(tokens.x + torch.cat([rows, cols], -1).flatten(1, 2))


class RelativeVectors(nn.Module):
    """A learned vector for each offset between two patches, multiplied with the query (arXiv:2010.11929, table 8).

    What is added to the scores of query i and key j is q_i · r_(j - i) / √e, the same r for all heads and 0
    where either is a prefix token. Other grids get the table of offsets resized.
    """

    def __init__(self, e: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.reach = (2 * grid[0] - 1, 2 * grid[1] - 1)
        self.table = nn.Parameter(0.02 * torch.randn(1, self.reach[0] * self.reach[1], e))

    def forward(self, q: Tensor, tokens: Tokens) -> Tensor:
        """Queries (b, h, n, e) of these tokens -> what is added to their scores, (b, h, n, n)."""
        row, col = tokens.grid
        table = resize_grid(self.table, self.reach, (2 * row - 1, 2 * col - 1), mode="bilinear_corners")
        scores = q[:, :, tokens.prefix :] @ table[0].T * q.shape[-1] ** -0.5  # (b, h, row·col, offsets)
        down, right = (torch.arange(side, device=q.device) for side in (row, col))
        down = down[None, :] - down[:, None] + row - 1  # (query, key): key minus query, from 0
        right = right[None, :] - right[:, None] + col - 1
        index = down[:, None, :, None] * (2 * col - 1) + right[None, :, None, :]
        index = index.reshape(1, 1, row * col, row * col).expand(*scores.shape[:2], -1, -1)
        return F.pad(scores.gather(3, index), (tokens.prefix, 0, tokens.prefix, 0))


def resize_grid(
    table: Tensor, old: tuple[int, ...], new: tuple[int, ...], *, mode: Resize
) -> Tensor:  # (1, prod(old), d) -> (1, prod(new), d)
    """Stretch a table of vectors over one grid, (row, col), to another, in the convention of its source."""
    if old == new:
        return table
    # In float32 whatever the table is kept in: places that are rounded twice are places that moved.
    grid = table.float().transpose(1, 2).view(1, -1, *old)  # (1, d, row, col)
    match mode:
        case "bilinear_corners":
            grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
        case "bicubic" | "bilinear":
            grid = F.interpolate(grid, new, mode=mode, align_corners=False)
        case "bicubic_antialias":
            grid = F.interpolate(grid, new, mode="bicubic", align_corners=False, antialias=True)
        case "nearest":
            grid = F.interpolate(grid, new, mode="nearest")
    return grid.flatten(2).transpose(1, 2).to(table.dtype)
