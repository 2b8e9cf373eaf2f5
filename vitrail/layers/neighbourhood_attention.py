"""Local window attention: each token attends to the k x k tokens around it (neighbourhood attention).

Hassani et al. 2023, "Neighborhood Attention Transformer", arXiv:2204.07143, as in `keras_cv_attention_models` 1.4.3,
which WetMapFormer calls. At the border the window does not shrink: its centre is clamped inside the map, so every token
has k² keys. A map smaller than k is padded with zero tokens at the bottom and the right before the projection, and
these pads are keys like all others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.sdpa import Recorder, TokenIndex, attend
from vitrail.layers.tokens import Tokens


class NeighbourhoodAttention(nn.Module):
    """Attention of each token to the `kernel` x `kernel` tokens around it: Tokens -> (b, n, d).

    Its cost is linear in the number of tokens: n · kernel² products, no n x n matrix. `table` has a learned number per
    head for each offset in the window, (h, (2·kernel - 1)²). SettingError for an even `kernel`, and for `heads` that do
    not divide the width.
    """

    def __init__(self, width: int, heads: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise SettingError(f"A neighbourhood of {kernel} x {kernel} has no centre. Use an odd kernel.")
        if width % heads:
            raise SettingError(f"{heads} heads do not divide {width} channels. Choose a divisor.")
        self.heads, self.kernel = heads, kernel
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # With a single key its number cancels in the softmax, so that nothing could learn it.
        self.table = nn.Parameter(torch.zeros(heads, (2 * kernel - 1) ** 2), requires_grad=kernel > 1)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tensor:
        """Mix each token with its neighbours: Tokens of (b, row·col, d) -> (b, row·col, d)."""
        row, col = tokens.grid
        x = tokens.x
        b, n, _ = x.shape
        q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b n h e", three=3, h=self.heads)
        inside = [j for j in range(self.kernel**2) if j // self.kernel < row and j % self.kernel < col]
        keys = neighbours(row, col, self.kernel, x.device)[:, inside]  # (n, j)
        bias = self.table[:, offsets(row, col, self.kernel, x.device)]  # (h, n, k²)
        if len(inside) < self.kernel**2:
            k, v, keys, bias = self._with_pad(k, v, keys, bias, inside)
        k, v = (rearrange(part[:, keys.flatten()], "b (n j) h e -> (b n) h j e", n=n) for part in (k, v))
        bias = rearrange(bias, "h n j -> n h 1 j").repeat(b, 1, 1, 1).to(q.dtype)

        def where() -> TokenIndex:
            queries = torch.arange(n, device=x.device)[:, None]
            return TokenIndex(queries, torch.where(keys < n, keys, -1), (n, n))

        q = rearrange(q, "b n h e -> (b n) h 1 e")
        mixed = attend(q, k, v, bias=bias, record=record, where=where)
        out: Tensor = self.out(rearrange(mixed, "(b n) h 1 e -> b n (h e)", n=n))
        return out

    def _with_pad(
        self, k: Tensor, v: Tensor, keys: Tensor, bias: Tensor, inside: list[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add one key to each query that stands for all pads of its window, as token n.

        Pads differ in their bias only, and e^(s + b1) + e^(s + b2) = e^(s + log(e^b1 + e^b2)): this is exact.
        """
        n = len(keys)
        # The projection of a zero token is the bias, so that no pad has to be projected.
        _, key, value = rearrange(self.qkv.bias, "(three h e) -> three 1 1 h e", three=3, h=self.heads)
        k, v = (
            torch.cat([part, pad.expand(len(part), -1, -1, -1).to(part.dtype)], 1)
            for part, pad in ((k, key), (v, value))
        )
        outside = [j for j in range(self.kernel**2) if j not in inside]
        bias = torch.cat([bias[..., inside], bias[..., outside].logsumexp(-1, keepdim=True)], -1)
        return k, v, F.pad(keys, (0, 1), value=n), bias


def neighbours(row: int, col: int, kernel: int, device: torch.device) -> Tensor:
    """Return the keys of each token of a grid in raster order: (row·col, kernel²).

    Those outside of a grid that is smaller than the window are no tokens of it; they are at its bottom and right.
    """
    first = [
        (torch.arange(side, device=device) - kernel // 2).clamp(0, max(0, side - kernel))
        for side in (row, col)
    ]
    steps = torch.arange(kernel, device=device)
    rows, cols = (start[:, None] + steps for start in first)  # (row, kernel), (col, kernel)
    return (rows[:, None, :, None] * col + cols[None, :, None, :]).reshape(row * col, kernel**2)


def offsets(row: int, col: int, kernel: int, device: torch.device) -> Tensor:
    """Return the entry of the table for each token and each of its keys: (row·col, kernel²).

    The first entry belongs to the offset of the token in the first place of its window; a token in the middle of the
    map is in the middle of its window.
    """
    places = []
    for side in (row, col):
        padded = max(side, kernel)
        token = torch.arange(side, device=device)
        # The list is in the opposite order of the tokens: the last token of the padded map begins at entry 0.
        turned = padded - 1 - token
        places.append(turned.clamp(max=kernel // 2) + (turned - (padded - 1 - kernel // 2)).clamp(min=0))
    steps = torch.arange(kernel, device=device)
    width = 2 * kernel - 1
    base = places[0][:, None] * width + places[1][None, :]
    inside = steps[:, None] * width + steps[None, :]
    return (base[:, :, None, None] + inside).reshape(row * col, kernel**2)
