"""The blocks that columns are stacked of, and what stands between their parts."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import Recorder
from vitrail.layers.initial import xavier
from vitrail.layers.tokens import Tokens

Gelu = Literal["exact", "tanh"]
"""GELU as the error function gives it, or its tanh approximation (Flax's default: Google's ViT; DiT)."""


def gelu(kind: Gelu) -> nn.GELU:
    """Return the GELU of this kind."""
    return nn.GELU(approximate="tanh" if kind == "tanh" else "none")


class Mlp(nn.Module):
    """Two layers with a GELU between, applied to every token alone: Tokens -> (b, n, d)."""

    def __init__(self, width: int, hidden: int, *, kind: Gelu = "exact") -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden)
        self.gelu = gelu(kind)
        self.fall = nn.Linear(hidden, width)
        xavier(self.rise, bias_std=1e-6)
        xavier(self.fall, bias_std=1e-6)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d)."""
        out: Tensor = self.fall(self.gelu(self.rise(tokens.x)))
        return out


class SwiGlu(nn.Module):
    """W_2 (silu(W_g x) ⊙ W_1 x) (Shazeer 2020, arXiv:2002.05202): Tokens -> (b, n, d).

    Gate and value are one projection of 2 · `hidden` rows, the gate first.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, 2 * hidden)
        self.fall = nn.Linear(hidden, width)
        xavier(self.rise, parts=2)
        xavier(self.fall)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d)."""
        gate, value = self.rise(tokens.x).chunk(2, -1)
        out: Tensor = self.fall(F.silu(gate) * value)
        return out


class DropPath(nn.Module):
    """Drops the branch of whole samples in training, scales the rest (Huang et al., arXiv:1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(b, …) -> (b, …)."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * kept.to(x.dtype) / keep

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"{self.rate:g}"


class LayerScale(nn.Module):
    """One learned factor a channel on a branch (Touvron et al. 2021, arXiv:2103.17239, eq. 5)."""

    def __init__(self, width: int, first: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), first))

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d)."""
        return x * self.gamma


class PreNorm(nn.Module):
    """x ← x + attention(LN(x)), x ← x + mlp(LN(x)) (arXiv:2010.11929, eqs. 2 and 3): Tokens -> Tokens.

    `attention` takes (Tokens, record) and `mlp` takes Tokens; both return (b, n, d). With `layer_scale` each
    branch gets its learned factors, which start at that value.
    """

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        mlp: nn.Module,
        *,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.drop = DropPath(drop_path)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        x = tokens.x
        x = x + self.drop(self.scale1(self.attention(tokens.with_x(self.norm1(x)), record)))
        x = x + self.drop(self.scale2(self.mlp(tokens.with_x(self.norm2(x)))))
        return tokens.with_x(x)


def ramp(rate: float, depth: int) -> list[float]:
    """Return the drop rates of a column of blocks: from 0 at the first, linearly, to `rate` at the last."""
    return [rate * i / max(1, depth - 1) for i in range(depth)]
