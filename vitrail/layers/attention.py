"""Self-attention: project the tokens to queries, keys and values, and call `attend`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.position import CausalMask, RelativeVectors
from vitrail.layers.sdpa import Recorder, TokenIndex, attend, class_attention
from vitrail.layers.token_merging import proportional
from vitrail.layers.tokens import Tokens
from vitrail.layers.weight_init import xavier


class SelfAttention(nn.Module):
    """Multi-head self-attention of all tokens (arXiv:2010.11929, eqs. 5-8): Tokens -> (b, n, d).

    `relative` computes a bias for the scores from the queries and the offsets between tokens; `rescale` multiplies the
    scores in addition to 1 / √e. `any_tokens` tells whether it takes any set of tokens, also after some were dropped.
    """

    any_tokens: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        relative: RelativeVectors | CausalMask | None = None,
        rescale: float = 1.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(f"{heads} heads do not divide a width of {width}. Choose a divisor of it.")
        self.heads = heads
        self.qkv = nn.Linear(
            width, 3 * width, bias=qkv_bias
        )  # U_qkv: queries, keys, values, each head by head
        self.out = nn.Linear(width, width)  # U_msa
        xavier(self.qkv, parts=3)
        xavier(self.out)
        self.relative = relative
        self.rescale = rescale

    def forward(self, tokens: Tokens, record: Recorder | None = None, asking: int | None = None) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d); with `asking` only the first `asking` tokens are queries."""
        if asking is not None and self.relative is None and record is None:
            return self._first(tokens, asking)
        q, k, v = self._parts(tokens.x)
        mixed = self._mix(q, k, v, tokens, record)
        return mixed if asking is None else mixed[:, :asking]

    def ranked(self, tokens: Tokens, record: Recorder | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of (b, n, d) -> (b, n, d), and the attention of the first token to every token, (b, n)."""
        q, k, v = self._parts(tokens.x)
        return self._mix(q, k, v, tokens, record), class_attention(q, k)

    def with_keys(self, tokens: Tokens, record: Recorder | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of (b, n, d) -> (b, n, d), and the keys of every token, the mean over heads: (b, n, e)."""
        q, k, v = self._parts(tokens.x)
        return self._mix(q, k, v, tokens, record), k.mean(1)

    def within(self, x: Tensor, record: Recorder | None, where: Callable[[], TokenIndex]) -> Tensor:
        """Mix the tokens of each group, whose places `where` gives to a recorder: (b·g, n, d) -> (b·g, n, d)."""
        q, k, v = self._parts(x)
        mixed: Tensor = self.out(
            rearrange(attend(q, k, v, record=record, where=where), "g h n e -> g n (h e)")
        )
        return mixed

    def across(self, x: Tensor, t: int, record: Recorder | None, where: Callable[[], TokenIndex]) -> Tensor:
        """Mix the tokens of each place over `t` frames: (b, t·n, d) -> (b, t·n, d).

        Places are taken apart after the projection: before it, OpenVINO 2026.4 computes something else for a fixed
        batch size.
        """
        q, k, v = (rearrange(part, "b h (t n) e -> (b n) h t e", t=t) for part in self._parts(x))
        mixed = attend(q, k, v, record=record, where=where)
        out: Tensor = self.out(rearrange(mixed, "(b n) h t e -> b (t n) (h e)", n=x.shape[1] // t))
        return out

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (b, n, d) -> (b, h, n, e) of each
        q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        return self._scaled(q), k, v

    def _scaled(self, q: Tensor) -> Tensor:
        return q if self.rescale == 1 else q * self.rescale

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tokens, record: Recorder | None) -> Tensor:
        bias = proportional(tokens) if self.relative is None else self.relative(q, tokens)
        whole = tokens.kept is None and tokens.merged is None
        where = None if whole else (lambda: places(tokens))
        mixed = attend(q, k, v, bias=bias, record=record, where=where)
        out: Tensor = self.out(rearrange(mixed, "b h n e -> b n (h e)"))
        return out

    def _first(self, tokens: Tokens, asking: int) -> Tensor:  # (b, n, d) -> (b, asking, d)
        x, width = tokens.x, tokens.x.shape[-1]
        rows, more = self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :asking], rows[:width], None if more is None else more[:width])
        kv = F.linear(x, rows[width:], None if more is None else more[width:])
        q = self._scaled(rearrange(q, "b n (h e) -> b h n e", h=self.heads))
        k, v = rearrange(kv, "b n (two h e) -> two b h n e", two=2, h=self.heads)
        mixed: Tensor = self.out(
            rearrange(attend(q, k, v, bias=proportional(tokens)), "b h n e -> b n (h e)")
        )
        return mixed


def places(tokens: Tokens) -> TokenIndex:
    """Return the indices of tokens among all original tokens, after some were dropped or merged."""
    whole = tokens.prefix + prod(tokens.grid)
    if tokens.merged is not None:
        source = tokens.merged.source
        front = torch.arange(tokens.prefix, device=source.device).expand(source.shape[0], -1)
        here = torch.arange(tokens.x.shape[1], device=source.device)[None]
        return TokenIndex(here, here, (whole, whole), torch.cat([front, source + tokens.prefix], 1))
    assert tokens.kept is not None, "no tokens were dropped or merged"
    front = torch.arange(tokens.prefix, device=tokens.kept.device).expand(tokens.kept.shape[0], -1)
    at = torch.cat([front, tokens.kept + tokens.prefix], 1)[:, None]
    return TokenIndex(at, at, (whole, whole))
