"""Patch merging: from a fine grid of tokens to a coarser one."""

from __future__ import annotations

from einops import rearrange
from torch import nn

from vitrail.core.errors import SettingError
from vitrail.layers.tokens import Tokens


class PatchMerging(nn.Module):
    """Concatenate four neighbours, then a norm and a projection to twice the width (arXiv:2103.14030, §3.1).

    Tokens of (b, row·col, d) -> Tokens of (b, row/2·col/2, 2d). The order of the neighbours is column by column.
    """

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=eps)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, row·col, d) -> Tokens of (b, row/2·col/2, 2d)."""
        row, col = tokens.grid
        if row % 2 or col % 2:
            raise SettingError(f"A grid of {row} x {col} tokens cannot be halved. Choose another image size.")
        pattern = "b (row down col across) d -> b (row col) (across down d)"
        x = rearrange(tokens.x, pattern, row=row // 2, down=2, across=2)
        return Tokens(self.reduce(self.norm(x)), (row // 2, col // 2))
