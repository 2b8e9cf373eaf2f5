"""The text tower of CLIP: a causal Transformer over tokens of text (Radford et al. 2021, arXiv:2103.00020, §2.4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Gelu, Mlp, PreNorm
from vitrail.layers.position import CausalMask
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.layers.weight_init import scaled_by_depth


class TextTower(nn.Module):
    """Word pieces -> one vector per text, that of the end token: int64 (b, n) -> (b, width), n ≤ `context`.

    A token attends to itself and those before it only, so padding behind the end changes nothing. The end token is the
    one with the largest id; `vocabulary` is the number of ids. `gelu` is "quick" in OpenAI's networks, "exact" in most
    others. Its attention is recorded like that of an encoder: one map (b, h, n, n) per block, whose rows are those of a
    softmax, zero after the query.
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        context: int = 77,
        vocabulary: int = 49408,
        gelu: Gelu = "exact",
    ) -> None:
        super().__init__()
        self.width, self.context = width, context
        self.checkpointing = False
        self.embed = nn.Embedding(vocabulary, width)
        self.table = nn.Parameter(torch.empty(context, width))
        # Not a `Column`: operating points, which drop and merge patches, must not change it.
        self.blocks = nn.ModuleList(_block(width, heads, gelu) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.table, std=0.01)
        scaled_by_depth(list(self.blocks), width)

    def forward(self, tokens: Tensor, record: Recorder | None = None) -> Tensor:
        """Ids of word pieces, int64 (b, n), padded at the end -> (b, width).

        Raises:
            SettingError: there are more tokens than the tower has positions for.
        """
        n = tokens.shape[1]
        if n > self.context:
            raise SettingError(
                f"The text tower reads {self.context} tokens, not {n}. Shorten the texts or build it with more "
                f"(context={n})."
            )
        x = Tokens(self.embed(tokens) + self.table[:n])
        for block in self.blocks:
            if record is not None:
                record.enter(block, x)
            x = self._run(block, x, record)
        end = tokens.argmax(1)  # before the norm, which treats every token separately
        last: Tensor = self.norm(x.x[torch.arange(len(end), device=end.device), end])
        return last

    def _run(self, block: nn.Module, tokens: Tokens, record: Recorder | None) -> Tokens:
        if self.checkpointing and record is None and torch.is_grad_enabled():
            saved: Tokens = checkpoint(block, tokens, use_reentrant=False)
            return saved
        out: Tokens = block(tokens, record)
        return out

    def set_grad_checkpointing(self, on: bool) -> None:
        """Set whether activations of the blocks are computed again in the backward pass, which saves memory."""
        self.checkpointing = on


def _block(width: int, heads: int, gelu: Gelu) -> PreNorm:
    attention = SelfAttention(width, heads, relative=CausalMask())
    return PreNorm(width, attention, Mlp(width, 4 * width, kind=gelu), eps=1e-5)
