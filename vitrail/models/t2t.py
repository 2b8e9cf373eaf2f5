"""T2T-ViT: Yuan et al. 2021, "Tokens-to-Token ViT", arXiv:2101.11986; its performer from Choromanski et al. 2020,
"Rethinking Attention with Performers", arXiv:2009.14794.

The image becomes tokens in three soft splits (§3.1): overlapping squares are unfolded into tokens, a small attention
reduces them to `token_width`, and the tokens, arranged as an image, are unfolded again. Each split halves the grid (the
first one divides it by four). After the third split follows a narrow and deep ViT with fixed sine positions, and
queries, keys and values without biases (§3.2).

The small attention is a softmax (`transformer`) or a `performer`, which is linear in the number of tokens, with the
random features phi(x) = exp(x wᵀ - |x|²/2) / √m; w is stored with the weights. Axes: b batch, n tokens, d width,
c channels, m features, row col grid. A recorder gets the blocks of the ViT only, because the tokens of the splits are
finer than its grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import Prefix, Sized, SoftSplit, check_channels, check_size
from vitrail.layers.position import SinePosition
from vitrail.layers.sdpa import attend
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import truncated

STRIDE = 16
"""Pixels that a token spans after the three splits."""


@dataclass(frozen=True, slots=True)
class T2TConfig(Sized):
    """The settings of a T2T-ViT; the defaults are T2T-ViT-14.

    `image` is the size of the stored sine table, one number or (height, width). `hidden` is in multiples of the width.
    With `scale` "head" the scores are divided by the root of the head's width; with "width" by the root of the whole
    width, as the official code does when its weights are loaded by timm's `pretrained=True`.
    """

    family: ClassVar[str] = "t2t"

    image: int | tuple[int, int] = 224
    channels: int = 3
    tokens: Literal["performer", "transformer"] = "performer"
    token_width: int = 64
    width: int = 384
    depth: int = 14
    heads: int = 6
    hidden: float = 3.0
    scale: Literal["head", "width"] = "head"
    norm_eps: float = 1e-5
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the splits do not tile."""
        if any(side % STRIDE or side <= 0 for side in self.size):
            raise SettingError(
                f"Splits of {STRIDE} pixels do not tile {' x '.join(map(str, self.size))} pixels. "
                "Change the image size."
            )


class T2T(ColumnEncoder):
    """The encoder of T2T-ViT: images (b, channels, height, width) -> Features of one column."""

    Config = T2TConfig

    def __init__(self, config: T2TConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(STRIDE,),
            prefix=("cls",),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="cls",
            sizes="any",
            channels=c.channels,
        )
        self.split = TokensToToken(c)
        self.prefix = Prefix(c.width)
        self.position = SinePosition(c.width, (c.size[0] // STRIDE, c.size[1] // STRIDE), prefix=1)
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        truncated(self, 0.02)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, prefix + row·col, d)."""
        check_channels(images, self.config.channels)
        check_size(images, STRIDE)
        tokens: Tokens = self.position(self.prefix(self.split(images)))
        return tokens


class TokensToToken(nn.Module):
    """Three soft splits with an attention between (§3.1): (b, c, height, width) -> Tokens of (b, row·col, d)."""

    def __init__(self, c: T2TConfig) -> None:
        super().__init__()
        kind = TokenPerformer if c.tokens == "performer" else TokenTransformer
        # kernel, stride and padding of each
        self.splits = nn.ModuleList(SoftSplit(*shape) for shape in ((7, 4, 2), (3, 2, 1), (3, 2, 1)))
        self.steps = nn.ModuleList(kind(wide, c.token_width) for wide in (49 * c.channels, 9 * c.token_width))
        self.project = nn.Linear(9 * c.token_width, c.width)

    def forward(self, images: Tensor) -> Tokens:
        """(b, c, height, width) -> Tokens of (b, row·col, d)."""
        tokens: Tokens = self.splits[0](images)
        for step, split in zip(self.steps, self.splits[1:], strict=True):
            tokens = split(tokens.with_x(step(tokens.x)).map())
        return tokens.with_x(self.project(tokens.x))


class TokenPerformer(nn.Module):
    """Linear attention with one head and a skip from the values: (b, n, wide) -> (b, n, width)."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(wide)
        self.kqv = nn.Linear(wide, 3 * width)  # in this order
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        self.dropout = nn.Dropout(0.1)
        features = width // 2
        directions = nn.init.orthogonal_(torch.empty(features, width)) * features**0.5
        self.directions = nn.Parameter(directions, requires_grad=False)  # (m, width), w of the formula

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, wide) -> (b, n, width)."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, -1)
        k, q = self._features(k), self._features(q)
        total = (q @ k.sum(1)[:, :, None]) + 1e-8  # (b, n, 1)
        mixed = q @ (k.mT @ v) / total
        x = v + self.dropout(self.out(mixed))
        out: Tensor = x + self.dropout(self.mlp(Tokens(self.norm2(x))))
        return out

    def _features(self, x: Tensor) -> Tensor:  # (b, n, width) -> (b, n, m), phi of the formula
        features = len(self.directions)
        raised: Tensor = x @ self.directions.T - x.square().sum(-1, keepdim=True) / 2
        return raised.exp().div(features**0.5)


class TokenTransformer(nn.Module):
    """Softmax attention with one head and a skip from the values: (b, n, wide) -> (b, n, width).

    The scores are divided by the root of the unfolded width and not of the head's width, as in the official code.
    """

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(wide)
        self.qkv = nn.Linear(wide, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        self.rescale = (width / wide) ** 0.5  # `attend` divides by the root of `width`

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, wide) -> (b, n, width)."""
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b n (three e) -> three b 1 n e", three=3)
        x = (v + self.out(attend(q * self.rescale, k, v)))[:, 0]
        out: Tensor = x + self.mlp(Tokens(self.norm2(x)))
        return out


def _block(c: T2TConfig, rate: float) -> PreNorm:
    # `attend` divides by the root of a head's width, d / heads.
    rescale = 1.0 if c.scale == "head" else c.heads**-0.5
    attention = SelfAttention(c.width, c.heads, qkv_bias=False, rescale=rescale)
    return PreNorm(c.width, attention, Mlp(c.width, int(c.width * c.hidden)), drop_path=rate, eps=c.norm_eps)


_LITE = T2TConfig(width=256, heads=4, hidden=2.0)
_FULL = (
    ("14", T2TConfig()),
    ("19", T2TConfig(width=448, depth=19, heads=7)),
    ("24", T2TConfig(width=512, depth=24, heads=8)),
)

PRESETS: Mapping[str, T2TConfig] = MappingProxyType(
    {
        **{f"t2t_vit_{depth}": replace(_LITE, depth=depth) for depth in (7, 10, 12)},
        **{f"t2t_vit_{name}": config for name, config in _FULL},
        **{f"t2t_vit_t_{name}": replace(config, tokens="transformer") for name, config in _FULL},
        "t2t_vit_14_resnext": T2TConfig(heads=32),
        "t2t_vit_14_wide": T2TConfig(width=768, depth=4, heads=12),
    }
)
