"""The one door to softmax attention: fused when nobody looks, explicit and recorded when somebody does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.layers.tokens import Tokens


class TokenIndex(NamedTuple):
    """Which token each row and each column of an attention map stands for.

    There are `g` groups of queries (one for full attention, one a window for window attention); -1 is
    padding. Where each image kept tokens of its own, the places have its axis in front.
    """

    rows: Tensor  # (g, q) or (b, g, q)
    cols: Tensor  # (g, k) or (b, g, k)
    size: tuple[int, int]  # tokens that ask, tokens that are asked


class AttentionMap(NamedTuple):
    """One attention call as it happened; `weights` itself multiplied the values and is still in the graph."""

    weights: Tensor  # (b·g, h, q, k)
    rows: Tensor  # (g, q) or (b, g, q) the token of each query
    cols: Tensor  # (g, k) or (b, g, k) the token of each key, -1 for padding
    size: tuple[int, int]  # (n_q, n_k)
    grid: tuple[int, ...] = ()  # that the tokens stand on, behind `prefix` others; () where nobody said
    prefix: int = 0

    @property
    def groups(self) -> int:
        """How many groups of queries an image has."""
        return self.rows.shape[-2]

    def dense(self) -> Tensor:
        """Return the whole matrix (b, h, n_q, n_k), zero where a query sees no key; for display and tests."""
        n_q, n_k = self.size
        weights = rearrange(self.weights, "(b g) h q k -> b h (g q k)", g=self.groups)
        # Padding, -1, goes to an extra last row or column, cut off below.
        at = (self.rows % (n_q + 1))[..., :, None] * (n_k + 1) + (self.cols % (n_k + 1))[..., None, :]
        at = at.view(-1, 1, weights.shape[2]).expand_as(weights)
        flat = weights.new_zeros(*weights.shape[:2], (n_q + 1) * (n_k + 1))
        flat = flat.scatter_add(2, at, weights)
        return flat.view(*flat.shape[:2], n_q + 1, n_k + 1)[:, :, :n_q, :n_k]

    def right_multiply(self, v: Tensor) -> Tensor:
        """Multiply the mean over heads with a column vector: (b, n_k) -> (b, n_q), 0 where nobody asks."""
        turned = self._replace(
            weights=self.weights.transpose(-2, -1), rows=self.cols, cols=self.rows, size=self.size[::-1]
        )
        return turned.left_multiply(v)

    def left_multiply(self, r: Tensor) -> Tensor:
        """Pull a row vector through the mean over heads: (b, n_q) -> (b, n_k), never building n × n."""
        n_q, n_k = self.size
        padded = F.pad(r, (0, 1))  # the extra entry is what padding, -1, reads and writes
        b, q, k = r.shape[0], self.rows.shape[-1], self.cols.shape[-1]
        rows = (self.rows % (n_q + 1)).view(-1, self.groups * q).expand(b, -1)
        heads = self.weights.shape[1]
        asked = padded.gather(1, rows).view(-1, q) / heads  # (b·g, q)
        asked = asked.to(self.weights.dtype).repeat(1, heads)
        # One product over heads and queries: the mean of the heads is never written down.
        passed = (asked[:, None] @ self.weights.reshape(-1, heads * q, k)).view(b, -1)
        cols = (self.cols % (n_k + 1)).view(-1, self.groups * k).expand(b, -1)
        return passed.new_zeros(b, n_k + 1).scatter_add(1, cols, passed)[:, :n_k]


class Recorder:
    """Collects the attention maps of one forward, in the order of the calls; hand it over as `record`."""

    def __init__(self) -> None:
        self.maps: list[AttentionMap] = []
        self.grid: tuple[int, ...] = ()
        self.prefix = 0

    def enter(self, block: nn.Module, tokens: Tokens) -> None:
        """Hear that a block begins: what it attends stands on the grid of these tokens."""
        self.set_grid(tokens.grid, tokens.prefix)

    def set_grid(self, grid: tuple[int, ...], prefix: int) -> None:
        """Hear on which grid, behind how many prefix tokens, the next calls stand."""
        self.grid, self.prefix = grid, prefix

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Keep one call: weights (b·g, h, q, k) and where its rows and columns lie."""
        self.maps.append(AttentionMap(weights, *place, self.grid, self.prefix))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Answer one call of `attend`, with the softmax that is recorded."""
        weights = softmax(q, k, v, bias)
        self.add(weights, where())
        out: Tensor = weights @ v
        return out


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    record: Recorder | None = None,
    where: Callable[[], TokenIndex] | None = None,
) -> Tensor:  # (b·g, h, q, e), (b·g, h, k, e), (b·g, h, k, e) -> (b·g, h, q, e)
    """Return softmax(q kᵀ / √e + bias) v (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    `bias` broadcasts to (b·g, h, q, k). `where` is asked only when recording; without it every query sees
    every key, in order.
    """
    if record is not None:
        return record.attend(q, k, v, bias, where or partial(_everywhere, q, k))
    if _plain_is_quicker(q, k):
        out: Tensor = softmax(q, k, v, bias) @ v
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def softmax(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return the weights that `attend` multiplies the values with: (b·g, h, q, k)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights: Tensor = (scores if bias is None else scores + bias).softmax(-1).to(v.dtype)
    return weights


def class_attention(q: Tensor, k: Tensor) -> Tensor:  # (b, h, n, e), (b, h, n, e) -> (b, n)
    """Return how much the first token looks at each: softmax(q_0 kᵀ / √e), the mean over heads.

    The fused kernel keeps its weights to itself; this one row of them costs next to nothing.
    """
    scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    looks: Tensor = scores.softmax(-1).mean(1)[:, 0]
    return looks


SHORT = 1024
"""Tokens up to which plain products train quicker than the fused kernel, on a CPU in bf16."""


def _plain_is_quicker(q: Tensor, k: Tensor) -> bool:
    """Tell whether to train by plain products: the fused kernel's backward on a CPU is slow in bf16.

    Forward and backward of (32, 6, 197, 64) took 86 ms fused and 44 ms plain with AVX-512 alone, even at 1,025 tokens;
    with AMX 100 and 31 ms, of (8, 6, 769, 64) 169 and 101 ms, of (8, 6, 1025, 64) 258 and 188 ms.
    """
    trains = q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16
    return trains and max(q.shape[-2], k.shape[-2]) <= SHORT


def _everywhere(q: Tensor, k: Tensor) -> TokenIndex:
    rows, cols = (torch.arange(x.shape[-2], device=x.device)[None] for x in (q, k))
    return TokenIndex(rows, cols, (rows.shape[1], cols.shape[1]))
