"""Vicinity attention: linear in the number of tokens, with higher weights for near tokens of the grid.

Sun et al. 2022, "Vicinity Vision Transformer", arXiv:2206.10552. There is no softmax: queries and keys go through a
ReLU, and their product is weighted by the nearness of the two tokens,

    A_ij = z_i · relu(q_i)·relu(k_j) · w_ij,   z_i = 1 / (Σ_j … + 1e-4)

With a = π/2 · row / rows and b = π/2 · col / cols, `sum` is w = cos(a_i - a_j) + cos(b_i - b_j), the Manhattan
distance on two axes, and `product` is w = cos(a_i - a_j) · cos(b_i - b_j). Both can be factored into a part of i and a
part of j, four times as wide, so that keys and values are summed once and A is never computed.
"""

from __future__ import annotations

from math import pi
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.sdpa import Recorder, TokenIndex
from vitrail.layers.tokens import Tokens

Form = Literal["sum", "product"]

LOW, HIGH = 1e-4, 1e4
"""Bounds of the magnitudes between the operations."""


class VicinityAttention(nn.Module):
    """Vicinity attention with reduced features and the feature preserving connection: Tokens -> (b, n, d).

    Queries, keys and values are `width` / `reduce` wide. With `shrink` > 1 keys and values come from a grid that is
    `shrink` times coarser. The output is scaled by 1 + g, where the gate g is computed from the mean of the full-width
    input.
    """

    def __init__(self, width: int, heads: int, *, reduce: int, shrink: int = 1, form: Form = "sum") -> None:
        super().__init__()
        if width % (reduce * heads):
            raise SettingError(
                f"{heads} heads do not divide {width} channels reduced {reduce} times. Choose a divisor."
            )
        self.heads, self.form = heads, form
        inner = width // reduce
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.squeeze, self.excite = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.shrink = shrink
        self.coarse = nn.Conv2d(width, width, shrink, shrink) if shrink > 1 else None
        self.coarse_norm = nn.LayerNorm(width, eps=1e-5) if shrink > 1 else None

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d)."""
        coarse = self._coarser(tokens)
        q = self._split(F.relu(self.query(tokens.x)))
        k = self._split(F.relu(self.key(coarse.x)))
        v = self._split(self.value(coarse.x))
        # The angle of a coarse key is that of its row in the coarse grid.
        q, k = spread(q, tokens.grid, self.form), spread(k, coarse.grid, self.form)
        z = bounded(1 / (q @ k.sum(2)[..., None] + 1e-4))  # (b, h, n, 1)
        if record is None:
            mixed = bounded(bounded(q @ bounded(k.mT @ v)) * z)
        else:
            weights = q @ k.mT * z
            record.add(weights, self._place(tokens, coarse))
            mixed = bounded(weights @ v)
        out = bounded(self.out(rearrange(mixed, "b h n e -> b n (h e)")))
        gate = self.excite(F.relu(self.squeeze(tokens.x.mean(1, keepdim=True)))).sigmoid()
        return bounded(out * (1 + gate))

    def _coarser(self, tokens: Tokens) -> Tokens:
        if self.coarse is None or self.coarse_norm is None:
            return tokens
        grid = self.coarse(tokens.map())
        return Tokens(self.coarse_norm(grid.flatten(2).mT), (grid.shape[2], grid.shape[3]))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h e) -> b h n e", h=self.heads)

    def _place(self, tokens: Tokens, coarse: Tokens) -> TokenIndex:
        """Return the token indices of queries and keys; a coarse key has that of the middle token of its square."""
        rows, cols = (
            torch.arange(side, device=tokens.x.device) * self.shrink + self.shrink // 2
            for side in coarse.grid
        )
        keys = rows[:, None] * tokens.grid[1] + cols[None, :]
        n = tokens.x.shape[1]
        return TokenIndex(torch.arange(n, device=tokens.x.device)[None], keys.view(1, -1), (n, n))


def spread(x: Tensor, grid: tuple[int, ...], form: Form) -> Tensor:  # (b, h, n, e) -> (b, h, n, 4e)
    """Return features whose products are the products of `x` times the nearness of the tokens."""
    row, col = grid
    a = pi / 2 * torch.arange(row, device=x.device, dtype=torch.float32) / row
    b = pi / 2 * torch.arange(col, device=x.device, dtype=torch.float32) / col
    a, b = a[:, None].expand(row, col).reshape(-1, 1), b[None, :].expand(row, col).reshape(-1, 1)
    if form == "sum":
        parts = (a.cos(), a.sin(), b.cos(), b.sin())
    else:
        parts = (a.cos() * b.cos(), a.cos() * b.sin(), a.sin() * b.cos(), a.sin() * b.sin())
    return torch.cat([x * part.to(x.dtype) for part in parts], -1)


def bounded(x: Tensor) -> Tensor:
    """Clamp magnitudes to the bounds and keep the signs; zeros stay zero."""
    return x.sign() * x.abs().clamp(LOW, HIGH)
