"""A ViT of two blocks without a class token (Dosovitskiy et al. 2021, arXiv:2010.11929; equations: its).

    z_0 = [x_1 E; …; x_N E] + E_pos (1), then eqs. 2 to 4, of which the mean of all tokens goes on

Axes: b batch, n tokens in raster order, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Sized, check_tiles, tiled
from vitrail.layers.position import LearnedPosition
from vitrail.layers.tokens import FeatureSpec, Tokens


@dataclass(frozen=True, slots=True)
class MiniViTConfig(Sized):
    """The settings; `image` is the size that the position table is made for, one number or (height, width)."""

    family: ClassVar[str] = "minivit"

    image: int | tuple[int, int] = 32
    patch: int = 8
    channels: int = 3
    width: int = 32
    depth: int = 2
    heads: int = 2
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an image that the patches do not tile (SettingError)."""
        check_tiles(self.size, self.patch, self.patch)


class MiniViT(ColumnEncoder):
    """The encoder: images (b, channels, height, width) -> Features of one column."""

    Config = MiniViTConfig

    def __init__(self, config: MiniViTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="mean",
            channels=c.channels,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.position = LearnedPosition(c.width, tiled(c.size, c.patch, c.patch))
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> Tokens that the first block takes, (b, row·col, d)."""
        tokens: Tokens = self.position(self.embed(images))  # eq. 1
        return tokens


def _block(c: MiniViTConfig, rate: float) -> PreNorm:
    return PreNorm(
        c.width, SelfAttention(c.width, c.heads), Mlp(c.width, 4 * c.width), drop_path=rate, eps=1e-6
    )


PRESETS: Mapping[str, MiniViTConfig] = MappingProxyType({"minivit_s": MiniViTConfig()})
