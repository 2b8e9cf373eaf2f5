"""Attention within windows of a grid (Liu et al. 2021, arXiv:2103.14030, §3.2)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.sdpa import Recorder, TokenIndex, attend
from vitrail.layers.tokens import Tokens

APART = -100.0
"""The mask value for pairs from opposite edges that the shift brings together: Swin's number, not minus infinity."""


class RelativeBias(nn.Module):
    """A learned number per head for each offset between two places of a window: () -> (h, n, n), n = window².

    The table is ((2·window - 1)², h), the row offset is the slow index; the offset is query minus key.
    """

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self) -> Tensor:
        """() -> biases of all pairs, (h, n, n)."""
        side = torch.arange(self.window, device=self.table.device)
        offset = side[:, None] - side[None, :] + self.window - 1  # (query, key) on one axis
        index = offset[:, None, :, None] * (2 * self.window - 1) + offset[None, :, None, :]
        n = self.window**2
        return self.table[index.reshape(n * n)].view(n, n, -1).permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Self-attention within windows, which may be `shifted` by half a window: Tokens -> (b, n, d).

    Both sides of the grid must be multiples of `window` (SettingError). A grid that is one window high or
    wide is not shifted.
    """

    def __init__(self, width: int, heads: int, window: int, *, shifted: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = RelativeBias(window, heads)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tensor:
        """Mix the tokens within each window: Tokens of (b, n, d) -> (b, n, d)."""
        row, col = tokens.grid
        if row % self.window or col % self.window:
            raise SettingError(
                f"A grid of {row} x {col} tokens does not divide into windows of {self.window}. Choose another size."
            )
        shift = self.window // 2 if self.shifted and min(row, col) > self.window else 0
        places = torch.arange(row * col, device=tokens.x.device).view(1, row, col, 1)
        places = self._cut(torch.roll(places, (-shift, -shift), (1, 2)))[..., 0]  # (g, w²)

        x = rearrange(tokens.x, "b (row col) d -> b row col d", row=row)
        x = self._cut(torch.roll(x, (-shift, -shift), (1, 2)) if shift else x)  # (b·g, w², d)
        q, k, v = rearrange(self.qkv(x), "bg n (three h e) -> three bg h n e", three=3, h=self.heads)
        bias = self.bias()[None]  # (1, h, w², w²)
        if shift:
            mask = self._mask(row, col, shift, x)
            bias = (bias + mask[:, None]).repeat(tokens.x.shape[0], 1, 1, 1)  # (b·g, h, w², w²)
        size = (row * col, row * col)
        x = attend(
            q, k, v, bias=bias.to(q.dtype), record=record, where=lambda: TokenIndex(places, places, size)
        )
        x = self.out(rearrange(x, "bg h n e -> bg n (h e)"))
        x = self._join(x, row, col)
        x = torch.roll(x, (shift, shift), (1, 2)) if shift else x
        return x.flatten(1, 2)

    def _cut(self, x: Tensor) -> Tensor:  # (b, row, col, d) -> (b·g, w², d)
        pattern = "b (row r) (col c) d -> (b row col) (r c) d"
        return rearrange(x, pattern, r=self.window, c=self.window)

    def _join(self, x: Tensor, row: int, col: int) -> Tensor:  # (b·g, w², d) -> (b, row, col, d)
        pattern = "(b row col) (r c) d -> b (row r) (col c) d"
        w = self.window
        return rearrange(x, pattern, row=row // w, col=col // w, r=w)

    def _mask(self, row: int, col: int, shift: int, like: Tensor) -> Tensor:
        """Return 0 for pairs from the same region before the shift, `APART` for the others: (g, w², w²)."""
        # The shift makes three bands per axis that come from different regions; they must not attend to each other.
        bands = [
            (torch.arange(side, device=like.device) >= side - self.window).int()
            + (torch.arange(side, device=like.device) >= side - shift).int()
            for side in (row, col)
        ]
        region = self._cut((bands[0][:, None] * 3 + bands[1][None, :])[None, :, :, None])[..., 0]  # (g, w²)
        return (region[:, :, None] != region[:, None, :]).to(like.dtype) * APART
