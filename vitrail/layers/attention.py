"""Attention modules: they split the tokens into queries, keys and values and leave the rest to `attend`."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attend import Recorder, attend
from vitrail.layers.initial import xavier
from vitrail.layers.position import RelativeVectors
from vitrail.layers.tokens import Tokens


class SelfAttention(nn.Module):
    """Multi-head self-attention of all tokens (arXiv:2010.11929, eqs. 5-8): Tokens -> (b, n, d).

    `relative` adds to the scores what it makes of the queries and the offsets between the patches.
    """

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool = True, relative: RelativeVectors | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(f"{heads} heads do not divide a width of {width}; choose a divisor of it.")
        self.heads = heads
        self.qkv = nn.Linear(
            width, 3 * width, bias=qkv_bias
        )  # U_qkv: queries, keys, values, each head by head
        self.out = nn.Linear(width, width)  # U_msa
        xavier(self.qkv, parts=3)
        xavier(self.out)
        self.relative = relative

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tensor:
        """Mix the tokens: Tokens of (b, n, d) -> (b, n, d)."""
        q, k, v = rearrange(self.qkv(tokens.x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        bias = None if self.relative is None else self.relative(q, tokens)
        mixed: Tensor = self.out(rearrange(attend(q, k, v, bias=bias, record=record), "b h n e -> b n (h e)"))
        return mixed
