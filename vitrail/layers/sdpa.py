"""Softmax attention for all networks: fused normally, explicit when it is recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitrail.layers.tokens import Tokens


class TokenIndex(NamedTuple):
    """The token index of each row and each column of an attention map.

    There are `g` groups of queries (one for full attention, one per window for window attention); -1 is padding. If
    every image kept other tokens, the indices have a batch axis in front. After tokens were merged, rows and columns
    are numbered in their order, and `source` tells for each of all tokens, which of them stands for it. A token may
    be a query of several groups, whose outputs are averaged: `share` then tells how much each counts.
    """

    rows: Tensor  # (g, q) or (b, g, q)
    cols: Tensor  # (g, k) or (b, g, k)
    size: tuple[int, int]  # number of query tokens, number of key tokens, before any were dropped or merged
    source: Tensor | None = None  # (b, n) the row and column of each token, after tokens were merged
    share: Tensor | None = None  # (g, q) the part of each row in that of its token; None: 1

    def only(self, asked: Tensor | slice) -> TokenIndex:
        """Return the indices of some of the queries of every group."""
        share = None if self.share is None else self.share[..., asked]
        return self._replace(rows=self.rows[..., asked], share=share)


class AttentionMap(NamedTuple):
    """One recorded attention call; `weights` is the tensor that multiplied the values, still in the autograd graph.

    Its methods speak of all tokens, also where some were merged: as a query, a patch has the row of its token; as a
    key, an equal part of the weight of its token, which is what proportional attention gives to equal keys.
    """

    weights: Tensor  # (b·g, h, q, k)
    rows: Tensor  # (g, q) or (b, g, q) the token of each query
    cols: Tensor  # (g, k) or (b, g, k) the token of each key, -1 for padding
    size: tuple[int, int]  # (n_q, n_k)
    source: Tensor | None = None  # (b, n) as in `TokenIndex`
    share: Tensor | None = None  # (g, q) as in `TokenIndex`
    grid: tuple[int, ...] = ()  # of the patch tokens, after `prefix` other tokens; () if unknown
    prefix: int = 0

    @property
    def groups(self) -> int:
        """The number of query groups per image."""
        return self.rows.shape[-2]

    def unasked(self, row: Tensor) -> Tensor:
        """Return a row vector with 0 for all tokens that have a query: (b, n_q) -> (b, n_q).

        The others, such as a class token during attention over time, leave the call as they are.
        """
        if self.source is not None or row.shape[-1] != self.size[0]:  # merged, or before others join: all ask
            return torch.zeros_like(row)
        rows = (self.rows % (self.size[0] + 1)).flatten(-2)
        asked = row.new_zeros(*rows.shape[:-1], self.size[0] + 1).scatter(-1, rows, 1.0)
        return row * (1 - asked[..., :-1])

    def dense(self) -> Tensor:
        """Return the full matrix (b, h, n_q, n_k), zero for pairs that do not attend; for display and tests."""
        if self.source is not None:
            return self._unmerged(self._of_merged().dense())
        n_q, n_k = self.size
        weights = rearrange(self._counted(), "(b g) h q k -> b h (g q k)", g=self.groups)
        # Padding, -1, goes to an additional last row or column, which is removed below.
        at = (self.rows % (n_q + 1))[..., :, None] * (n_k + 1) + (self.cols % (n_k + 1))[..., None, :]
        at = at.view(-1, 1, weights.shape[2]).expand_as(weights)
        flat = weights.new_zeros(*weights.shape[:2], (n_q + 1) * (n_k + 1))
        flat = flat.scatter_add(2, at, weights)
        return flat.view(*flat.shape[:2], n_q + 1, n_k + 1)[:, :, :n_q, :n_k]

    def unmerged(self) -> AttentionMap:
        """Return a call, or a piece of it, as rows and columns of all tokens: (1, h, q, k) -> (1, h, rows, n).

        For one image; a call without merged tokens is returned unchanged.
        """
        if self.source is None:
            return self
        source = self.source[0]
        rows, of_row = (source[:, None] == self.rows.reshape(1, -1)).nonzero(as_tuple=True)
        wide = self.weights[:, :, of_row][..., source] / self._counts()[0, source]
        every = torch.arange(len(source), device=source.device)[None]
        return self._replace(weights=wide, rows=rows[None], cols=every, source=None)

    def _counted(self) -> Tensor:
        """Return the weights times the share of each row: (b·g, h, q, k)."""
        if self.share is None:
            return self.weights
        each = (
            rearrange(self.weights, "(b g) h q k -> b g h q k", g=self.groups) * self.share[:, None, :, None]
        )
        return each.flatten(0, 1)

    def _of_merged(self) -> AttentionMap:
        """Return the same call as a map of the merged tokens themselves."""
        tokens = self.cols.shape[-1]  # every token is a key
        return self._replace(size=(tokens, tokens), source=None)

    def _unmerged(self, weights: Tensor) -> Tensor:  # (b, h, m, m) of merged tokens -> (b, h, n, n)
        assert self.source is not None
        heads, (b, n) = weights.shape[1], self.source.shape
        keys = self.source[:, None, None].expand(b, heads, weights.shape[2], n)
        wide = weights.gather(3, keys) / self._counts().gather(1, self.source)[:, None, None]
        return wide.gather(2, self.source[:, None, :, None].expand(b, heads, n, n))

    def _counts(self) -> Tensor:
        """Return how many tokens each merged token stands for: (b, m)."""
        assert self.source is not None
        ones = torch.ones_like(self.source, dtype=self.weights.dtype)
        return self._summed(ones)

    def _summed(self, row: Tensor) -> Tensor:  # (b, n) -> (b, m)
        assert self.source is not None
        zeros = row.new_zeros(self.source.shape[0], self.cols.shape[-1])
        return zeros.scatter_add(1, self.source.expand(row.shape[0], -1), row)

    def evened(self, values: Tensor) -> Tensor:
        """Give all tokens that were merged the mean of their values: (b, n) -> (b, n)."""
        if self.source is None:
            return values
        return (self._summed(values) / self._counts()).gather(1, self.source)

    def right_multiply(self, v: Tensor) -> Tensor:
        """Multiply the mean over heads with a column vector: (b, n_k) -> (b, n_q), 0 for tokens without a query."""
        if self.source is not None:
            column = self._of_merged().right_multiply(self._summed(v) / self._counts())
            return column.gather(1, self.source)
        transposed = self._replace(
            weights=self._counted().transpose(-2, -1),
            rows=self.cols,
            cols=self.rows,
            size=self.size[::-1],
            share=None,
        )
        return transposed.left_multiply(v)

    def left_multiply(self, r: Tensor) -> Tensor:
        """Multiply a row vector with the mean over heads, without an n × n matrix: (b, n_q) -> (b, n_k)."""
        if self.source is not None:
            row = self._of_merged().left_multiply(self._summed(r))
            return (row / self._counts()).gather(1, self.source)
        n_q, n_k = self.size
        padded = F.pad(r, (0, 1))  # the additional entry is for padding, -1
        b, q, k = r.shape[0], self.rows.shape[-1], self.cols.shape[-1]
        rows = (self.rows % (n_q + 1)).reshape(-1, self.groups * q).expand(b, -1)
        heads = self.weights.shape[1]
        left = padded.gather(1, rows).view(-1, q) / heads  # (b·g, q)
        if self.share is not None:
            left = (left.view(b, -1, q) * self.share).view(-1, q)
        left = left.to(self.weights.dtype).repeat(1, heads)
        # One product over heads and queries: the mean over heads is never stored.
        product = (left[:, None] @ self.weights.reshape(-1, heads * q, k)).view(b, -1)
        cols = (self.cols % (n_k + 1)).reshape(-1, self.groups * k).expand(b, -1)
        return product.new_zeros(b, n_k + 1).scatter_add(1, cols, product)[:, :n_k]


class Recorder:
    """Collects the attention maps of one forward pass in the order of the calls; pass it as `record`."""

    def __init__(self) -> None:
        self.maps: list[AttentionMap] = []
        self.grid: tuple[int, ...] = ()
        self.prefix = 0

    def enter(self, block: Callable[..., object], tokens: Tokens) -> None:
        """Record the grid and the number of prefix tokens for the calls of the next block."""
        self.set_grid(tokens.grid, tokens.prefix)

    def set_grid(self, grid: tuple[int, ...], prefix: int) -> None:
        """Set the grid and the number of prefix tokens for the next calls."""
        self.grid, self.prefix = grid, prefix

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Store one call: weights (b·g, h, q, k), and the tokens of its rows and columns."""
        self.maps.append(AttentionMap(weights, *place, grid=self.grid, prefix=self.prefix))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Compute one call of `attend` with an explicit softmax, and record it."""
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

    `bias` broadcasts to (b·g, h, q, k). `where` is called only when recording; without it every query attends to every
    key, in order.
    """
    if record is not None:
        return record.attend(q, k, v, bias, where or partial(_everywhere, q, k))
    if _plain_is_faster(q, k):
        out: Tensor = softmax(q, k, v, bias) @ v
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def softmax(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return the attention weights of `attend`: (b·g, h, q, k)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights: Tensor = (scores if bias is None else scores + bias).softmax(-1).to(v.dtype)
    return weights


def class_attention(q: Tensor, k: Tensor) -> Tensor:  # (b, h, n, e), (b, h, n, e) -> (b, n)
    """Return the attention of the first token to every token: softmax(q_0 kᵀ / √e), averaged over heads.

    The fused kernel does not return its weights; computing this one row again costs very little.
    """
    scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights: Tensor = scores.softmax(-1).mean(1)[:, 0]
    return weights


SHORT = 1024
"""Largest number of tokens for which plain products train faster than the fused kernel, on a CPU in bf16."""


def _plain_is_faster(q: Tensor, k: Tensor) -> bool:
    """Tell whether to train with plain products: the backward pass of the fused kernel is slow on a CPU in bf16.

    Forward and backward of (32, 6, 197, 64) took 86 ms fused and 44 ms plain with AVX-512 alone, even at 1,025 tokens;
    with AMX 100 and 31 ms, of (8, 6, 769, 64) 169 and 101 ms, of (8, 6, 1025, 64) 258 and 188 ms.
    """
    trains = q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16
    return trains and max(q.shape[-2], k.shape[-2]) <= SHORT


def _everywhere(q: Tensor, k: Tensor) -> TokenIndex:
    rows, cols = (torch.arange(x.shape[-2], device=x.device)[None] for x in (q, k))
    return TokenIndex(rows, cols, (rows.shape[1], cols.shape[1]))
