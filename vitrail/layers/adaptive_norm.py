"""Blocks whose norms a vector of each image sets: adaLN-Zero, Peebles and Xie 2023, arXiv:2212.09748, §3.2.

The norms have no parameters of their own. A linear layer makes shift, scale and gate of every branch from the vector,
and begins at zero, so that every block is the identity at first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import RunError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.masked_decoder import unpatchify
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens


def plain_norm(width: int, eps: float) -> nn.LayerNorm:
    """Return a norm without parameters."""
    return nn.LayerNorm(width, eps=eps, elementwise_affine=False)


class Modulation(nn.Module):
    """From a vector of each image to `parts` vectors of the same width: (b, d) -> (b, 1, d) of each; zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """Tokens with a condition (b, d) -> so many tensors (b, 1, d). RunError for tokens without a condition."""
        if tokens.condition is None:
            raise RunError("These tokens have no condition; they come from a network without time and label.")
        out: Tensor = self.linear(F.silu(tokens.condition))
        return out[:, None].chunk(self.parts, -1)


def modulated(
    x: Tensor, shift: Tensor, scale: Tensor
) -> Tensor:  # (b, n, d), (b, 1, d), (b, 1, d) -> (b, n, d)
    """Return x · (1 + scale) + shift."""
    return x * (1 + scale) + shift


class AdaptiveBlock(nn.Module):
    """x ← x + g₁ attention(LN(x) (1 + s₁) + h₁), x ← x + g₂ mlp(LN(x) (1 + s₂) + h₂): Tokens -> Tokens.

    Shifts h, scales s and gates g follow from the condition of the tokens (arXiv:2212.09748, fig. 3).
    """

    def __init__(self, width: int, heads: int, hidden: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = plain_norm(width, eps)
        self.attention = SelfAttention(width, heads)
        self.norm2 = plain_norm(width, eps)
        self.mlp = Mlp(width, hidden, kind="tanh")
        self.modulation = Modulation(width, 6)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) with a condition (b, d) -> Tokens of (b, n, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(tokens)
        normed = tokens.with_x(modulated(self.norm1(tokens.x), shift1, scale1))
        tokens = tokens.with_x(tokens.x + gate1 * self.attention(normed, record))
        normed = tokens.with_x(modulated(self.norm2(tokens.x), shift2, scale2))
        return tokens.with_x(tokens.x + gate2 * self.mlp(normed))


class NoiseHead(Head):
    """The final layer of DiT: normalised tokens -> `noise` and `spread`, both (b, channels, height, width).

    `spread` is v, from which the variance of a step is interpolated (Nichol and Dhariwal 2021, arXiv:2102.09672,
    eq. 15); both are zero before training.
    """

    def __init__(self, spec: FeatureSpec, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.modulation = Modulation(spec.width, 2)
        self.linear = nn.Linear(spec.width, spec.strides[0] ** 2 * 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, row·col, d) and a condition -> noise and spread (b, channels, height, width)."""
        tokens = features.tokens
        shift, scale = self.modulation(tokens)
        pixels = self.linear(modulated(tokens.patches, shift, scale))
        row, col = tokens.grid
        noise, spread = unpatchify(pixels, (row, col), 2 * self.channels).chunk(2, 1)
        return {"noise": noise, "spread": spread}
