"""SuperViT: Lin et al. 2022, "Super Vision Transformer", arXiv:2205.11397; its second form is based on LV-ViT, Jiang
et al. 2021, "All Tokens Matter", arXiv:2104.10858.

One network for several costs. It is trained on several input sizes at once, each with its own position table, and on
fewer tokens: at three stations, the blocks 3, 6 and 9 counted from 0, only the patches with the highest attention of
the class token stay,

    a_j = mean over heads of softmax(q_class kᵀ / √e)_j,   ⌈keep · n⌉ patches stay,

after the attention and before the MLP of the block. Input size and share of kept tokens are an operating point
(`layers/elastic.py`). The caller resizes the images to it, and the table of their grid is used. Training of all points
in one step is in `tasks/wrappers/elastic.py`.

The first form is the DeiT of `deit.py`. The second form has a stem of convolutions, queries, keys and values without
biases, branches divided by 2, and a classifier that also reads every other token besides the class token. Axes: b
batch, n tokens, d width, row col patch grid. Initial values: N(0, 0.02), biases 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.elastic import SIDES, smaller_sizes
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import (
    PatchEmbed,
    Prefix,
    Sized,
    check_channels,
    check_size,
    check_tiles,
    project_patches,
)
from vitrail.layers.position import LearnedPosition
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import truncated


@dataclass(frozen=True, slots=True)
class SuperViTConfig(Sized):
    """The settings of a SuperViT; the defaults are the one based on DeiT-S.

    `image` is the largest size, one number or (height, width). `sides` are the proportions of the grids that have a
    table; the last one is that of `image`. `stations` are the blocks that drop tokens. `hidden` is in multiples of the
    width.
    """

    family: ClassVar[str] = "supervit"

    image: int | tuple[int, int] = 224
    patch: int = 16
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: float = 4.0
    form: Literal["deit", "lvvit"] = "deit"
    sides: tuple[int, ...] = SIDES
    stations: tuple[int, ...] = (3, 6, 9)
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile, and for an odd patch with a stem."""
        check_tiles(self.size, self.patch, self.patch)
        if self.form == "lvvit" and self.patch % 2:
            raise SettingError(f"The stem halves the image, so a patch of {self.patch} must be even.")

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """The grids that have a position table, the smallest first."""
        sizes = (*smaller_sizes(self.size, self.patch, self.sides), self.size)
        return tuple((height // self.patch, width // self.patch) for height, width in sizes)


class SuperViT(ColumnEncoder):
    """The encoder of SuperViT: images (b, channels, height, width) -> Features of one column."""

    Config = SuperViTConfig
    elastic = True

    def __init__(self, config: SuperViTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            prefix=("cls",),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="cls",
            dense=c.form == "lvvit",
            channels=c.channels,
        )
        self.embed = (ConvEmbed if c.form == "lvvit" else PatchEmbed)(c.width, c.patch, c.channels)
        self.prefix = Prefix(c.width)
        self.positions = nn.ModuleList(
            LearnedPosition(c.width, grid, prefix=1, resize="bicubic") for grid in c.grids
        )
        self.blocks = Column(
            (_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth)), c.stations
        )
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        truncated(self, 0.02)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, 1 + row·col, d)."""
        return self._placed(self.prefix(self.embed(images)))

    def _placed(self, tokens: Tokens) -> Tokens:
        """Add the position table of exactly this grid, or else the largest one, resized."""
        grids = self.config.grids
        turn = grids.index((tokens.grid[0], tokens.grid[1])) if tokens.grid in grids else -1
        placed: Tokens = self.positions[turn](tokens)
        return placed


class ConvEmbed(nn.Module):
    """LV-ViT's stem: three convolutions at half the size, then patches: (b, c, height, width) -> Tokens."""

    def __init__(self, width: int, patch: int, channels: int = 3) -> None:
        super().__init__()
        self.patch = patch
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.conv2, self.conv3 = (nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(64) for _ in range(3))
        self.project = nn.Conv2d(64, width, patch // 2, patch // 2)

    def forward(self, images: Tensor) -> Tokens:
        """(b, c, height, width) -> Tokens of (b, row·col, d), without prefix."""
        check_channels(images, self.conv1.in_channels)
        check_size(images, self.patch)
        x = F.relu(self.norm1(self.conv1(images)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        return project_patches(x, self.project)


def _block(c: SuperViTConfig, rate: float) -> PreNorm:
    lv = c.form == "lvvit"
    attention = SelfAttention(c.width, c.heads, qkv_bias=not lv)
    mlp = Mlp(c.width, int(c.width * c.hidden))
    return PreNorm(c.width, attention, mlp, drop_path=rate, eps=c.norm_eps, skip=2.0 if lv else 1.0)


_LV = SuperViTConfig(depth=16, hidden=3.0, form="lvvit", norm_eps=1e-5)

PRESETS: Mapping[str, SuperViTConfig] = MappingProxyType(
    {
        "supervit_digits": SuperViTConfig(
            image=32, patch=4, width=64, depth=4, heads=4, stations=(1, 2, 3)
        ),  # for small images, as vit_digits
        "supervit_s": SuperViTConfig(),
        "supervit_lvvit_s": _LV,
    }
)
