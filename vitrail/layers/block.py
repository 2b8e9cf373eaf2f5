"""Transformer blocks and their parts: MLPs, drop path and layer scale."""

from __future__ import annotations

from math import ceil
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.sdpa import Recorder
from vitrail.layers.token_merging import merge
from vitrail.layers.tokens import Tokens
from vitrail.layers.weight_init import xavier

Gelu = Literal["exact", "tanh", "quick"]
"""GELU with the error function, its tanh approximation (Flax's default: Google's ViT; DiT), or x·σ(1.702 x) (CLIP)."""


class QuickGelu(nn.Module):
    """x·σ(1.702 x), the approximation of GELU by a sigmoid (Hendrycks and Gimpel 2016, arXiv:1606.08415, §2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(…) -> (…)."""
        return x * torch.sigmoid(1.702 * x)


def gelu(kind: Gelu) -> nn.Module:
    """Return an exact GELU or one of its approximations."""
    return QuickGelu() if kind == "quick" else nn.GELU(approximate="tanh" if kind == "tanh" else "none")


class Mlp(nn.Module):
    """Two linear layers with a GELU between, applied to every token separately: Tokens -> (b, n, d)."""

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

    Gate and value are one projection with 2 · `hidden` rows, the gate first.
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


class ConvMlp(nn.Module):
    """An MLP with a depthwise 3 x 3 convolution on the grid before the GELU.

    Tokens of (b, row·col, d), without prefix -> (b, row·col, d) (PVTv2, Wang et al. 2022, arXiv:2106.13797).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fall = nn.Linear(hidden, width)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, row·col, d) -> (b, row·col, d)."""
        grid = self.near(tokens.with_x(self.rise(tokens.x)).map())
        out: Tensor = self.fall(F.gelu(grid.flatten(2).mT))
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
        return f"{self.rate:g}"


class LayerScale(nn.Module):
    """One learned factor per channel of a branch (Touvron et al. 2021, arXiv:2103.17239, eq. 5)."""

    def __init__(self, width: int, first: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), first))

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d)."""
        return x * self.gamma


class PreNorm(nn.Module):
    """x ← x + attention(LN(x)), x ← x + mlp(LN(x)) (arXiv:2010.11929, eqs. 2 and 3): Tokens -> Tokens.

    `attention` takes (Tokens, record) and `mlp` takes Tokens; both return (b, n, d). With `layer_scale` each branch has
    learned factors with this initial value; `skip` divides both branches (LV-ViT, Jiang et al. 2021, arXiv:2104.10858).
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
        skip: float = 1.0,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.drop = DropPath(drop_path)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, tokens: Tokens, record: Recorder | None = None, asking: int | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d); with `asking` only the first `asking` tokens are computed."""
        normed = tokens.with_x(self.norm1(tokens.x))
        if asking is None:
            mixed = self.attention(normed, record)
        else:
            mixed = self.attention(normed, record, asking)
            tokens = Tokens(tokens.x[:, :asking], prefix=asking)
        return self._fed(self._added(tokens, self.scale1(mixed)))

    def keeping(self, tokens: Tokens, rate: float, record: Recorder | None = None) -> Tokens:
        """Run the block, but keep only the patches with the highest attention of the class token, which is the first.

        ⌈rate · n⌉ patches stay, where n is the number of input tokens with the prefix; the prefix always stays. The
        attention must be `SelfAttention`, and the MLP must take each token separately (SuperViT, arXiv:2205.11397).
        """
        normed = tokens.with_x(self.norm1(tokens.x))
        mixed, weights = cast(SelfAttention, self.attention).ranked(normed, record)
        tokens = self._added(tokens, self.scale1(mixed))
        # A stable sort: patches with equal attention stay in raster order.
        order = weights[:, tokens.prefix :].argsort(dim=1, descending=True, stable=True)
        return self._fed(tokens.only(order[:, : ceil(rate * tokens.x.shape[1])]))

    def merging(self, tokens: Tokens, count: int, record: Recorder | None = None) -> Tokens:
        """Run the block, but merge `count` pairs of patches with similar keys after the attention.

        The attention must be `SelfAttention`, and the MLP must take each token separately (`token_merging`).
        """
        normed = tokens.with_x(self.norm1(tokens.x))
        mixed, keys = cast(SelfAttention, self.attention).with_keys(normed, record)
        return self._fed(merge(self._added(tokens, self.scale1(mixed)), keys, count))

    def _fed(self, tokens: Tokens) -> Tokens:
        return self._added(tokens, self.scale2(self.mlp(tokens.with_x(self.norm2(tokens.x)))))

    def _added(self, tokens: Tokens, branch: Tensor) -> Tokens:
        branch = self.drop(branch)
        return tokens.with_x(tokens.x + (branch if self.skip == 1 else branch / self.skip))


def stochastic_depth_rates(rate: float, depth: int) -> list[float]:
    """Return the drop rates of the blocks: linear from 0 at the first to `rate` at the last."""
    return [rate * i / max(1, depth - 1) for i in range(depth)]
