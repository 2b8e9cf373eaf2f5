"""Position embeddings: tables of learned vectors, and their resizing to other grids."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.tokens import Tokens

Resize = Literal["bilinear_corners", "bicubic", "bicubic_antialias", "bilinear", "nearest"]
"""How an implementation resizes its position tables: Google's ViT bilinear with aligned corners; DeiT, MAE, T2T and
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
        self.table = nn.Parameter(torch.randn(1, prefix + prod(grid), width).mul_(0.02))

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, prefix + n, d) -> the same with the position vectors added."""
        assert tokens.prefix == self.prefix, (
            f"the table covers {self.prefix} prefix tokens, not {tokens.prefix}"
        )
        return tokens.with_x(tokens.x + self.fitted(tokens.grid))

    def fitted(self, grid: tuple[int, ...]) -> Tensor:
        """Return the table resized to another grid: (1, prefix + prod(grid), d)."""
        if grid == self.grid:
            return self.table
        front, places = self.table[:, : self.prefix], self.table[:, self.prefix :]
        return torch.cat([front, resize_grid(places, self.grid, grid, mode=self.resize)], 1)


def placed(tokens: Tokens, prefix: nn.Module, position: nn.Module) -> Tokens:
    """Add the prefix tokens and the positions (arXiv:2010.11929, eq. 1).

    Tokens of (b, row·col, d) -> Tokens of (b, prefix + row·col, d). A table with rows for the prefix is added after the
    prefix; a table for patches only is added before it.
    """
    out: Tokens = position(prefix(tokens)) if getattr(position, "prefix", 0) else prefix(position(tokens))
    return out


class SinePosition(LearnedPosition):
    """Fixed sines and cosines of the token index, with the prefix (Vaswani et al. 2017, arXiv:1706.03762, §3.5).

    Not trained, but part of the weights. For other grids the table is resized and not computed again.
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


class GridSines(LearnedPosition):
    """Fixed sines and cosines of column and row, zeros for the prefix (He et al. 2022, arXiv:2111.06377, and its code).

    Not trained, but part of the weights. For other grids the table is resized (bicubic) and not computed again.
    """

    def __init__(
        self, width: int, grid: tuple[int, int], *, prefix: int = 0, resize: Resize = "bicubic"
    ) -> None:
        super().__init__(width, grid, prefix=prefix, resize=resize)
        table = F.pad(grid_sines(width, grid), (0, 0, prefix, 0))[None]
        self.table = nn.Parameter(table, requires_grad=False)


def grid_sines(width: int, grid: tuple[int, int]) -> Tensor:  # (row·col, width)
    """Return sines and cosines of the column in the first half of the channels, and of the row in the second.

    The angles are index / 10000^(4i / width), i < width / 4. SettingError for a width that four does not divide.
    """
    if width % 4:
        raise SettingError(f"Sines of rows and columns need a width that is a multiple of 4, not {width}.")
    pace = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, cols = (torch.arange(side, dtype=torch.float64)[:, None] * pace for side in grid)
    rows, cols = (torch.cat([angle.sin(), angle.cos()], 1).float() for angle in (rows, cols))
    places = (cols.expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1))
    return torch.cat(places, -1).flatten(0, 1)


class GridPosition(nn.Module):
    """A learned half vector for each row and one for each column, concatenated (arXiv:2010.11929, table 8).

    Only patches have a position, (row, col). For other grids both tables are resized. `width` must be even.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(1, grid[0], width // 2).mul_(0.02))
        self.cols = nn.Parameter(torch.randn(1, grid[1], width // 2).mul_(0.02))

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, row·col, d), without prefix -> the same with the position vectors added."""
        assert tokens.prefix == 0, "rows and columns are positions of patches only"
        row, col = tokens.grid
        rows, cols = (
            resize_grid(table, (table.shape[1], 1), (side, 1), mode="bilinear_corners")
            for table, side in ((self.rows, row), (self.cols, col))
        )
        rows, cols = rows[:, :, None].expand(-1, -1, col, -1), cols[:, None].expand(-1, row, -1, -1)
        return tokens.with_x(tokens.x + torch.cat([rows, cols], -1).flatten(1, 2))


class RelativeVectors(nn.Module):
    """A learned vector for each offset between two patches, multiplied with the query (arXiv:2010.11929, table 8).

    The score of query i and key j gets q_i · r_(j - i) / √e, with the same r for all heads, and 0 if either is a prefix
    token. For other grids the table of offsets is resized.
    """

    def __init__(self, e: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.reach = (2 * grid[0] - 1, 2 * grid[1] - 1)
        self.table = nn.Parameter(torch.randn(1, self.reach[0] * self.reach[1], e).mul_(0.02))

    def forward(self, q: Tensor, tokens: Tokens) -> Tensor:
        """Queries (b, h, n, e) of these tokens -> the bias of their scores, (b, h, n, n)."""
        row, col = tokens.grid
        table = resize_grid(self.table, self.reach, (2 * row - 1, 2 * col - 1), mode="bilinear_corners")
        scores = q[:, :, tokens.prefix :] @ table[0].T * q.shape[-1] ** -0.5  # (b, h, row·col, offsets)
        down, right = (torch.arange(side, device=q.device) for side in (row, col))
        down = down[None, :] - down[:, None] + row - 1  # (query, key): key minus query, from 0
        right = right[None, :] - right[:, None] + col - 1
        index = down[:, None, :, None] * (2 * col - 1) + right[None, :, None, :]
        index = index.reshape(1, 1, row * col, row * col).expand(*scores.shape[:2], -1, -1)
        return F.pad(scores.gather(3, index), (tokens.prefix, 0, tokens.prefix, 0))


class CausalMask(nn.Module):
    """The bias of text: -inf for keys after the query, so that a token attends to itself and those before it."""

    def forward(self, q: Tensor, tokens: Tokens) -> Tensor:
        """Queries (b, h, n, e) of these tokens -> the bias of their scores, (n, n)."""
        n = q.shape[2]
        # In the type of the queries: the fused kernel takes no other in bf16.
        return q.new_full((n, n), -torch.inf).triu(1)


def resize_grid(
    table: Tensor, old: tuple[int, ...], new: tuple[int, ...], *, mode: Resize
) -> Tensor:  # (1, prod(old), d) -> (1, prod(new), d)
    """Resize a table of vectors from one grid, (row, col), to another, with the method of its implementation."""
    if old == new:
        return table
    # Always in float32: rounding twice would move the positions.
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
