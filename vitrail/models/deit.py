"""DeiT: Touvron et al. 2021, "Training data-efficient image transformers & distillation through attention",
arXiv:2012.12877; and DeiT III, Touvron et al. 2022, "Revenge of the ViT", arXiv:2204.07118.

DeiT is the ViT of `vit.py`, trained on ImageNet only. It adds the distillation token: a second learned token beside the
class token, whose output is trained with a teacher network (§3). `DistilledHead` reads both. DeiT III removes it again,
scales both branches of every block by learned factors, and adds positions to the patches only.

    z_0 = [x_class; x_dist; x_1 E; …; x_N E] + E_pos,  then eqs. 2 to 4 of ViT

Axes: b batch, n tokens (class, distillation, then patches in raster order), d width, row col patch grid.
Initial values are those of the official code: N(0, 0.02) for tokens, positions and projections, biases 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_tiles
from vitrail.layers.position import LearnedPosition, Resize, placed
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import truncated


@dataclass(frozen=True, slots=True)
class DeiTConfig(Sized):
    """The settings of a DeiT; the defaults are DeiT-S without distillation.

    `image` is the size of the position table, one number or (height, width). For other sizes the table is resized by
    `resize`. `position` "1d" has rows for the prefix, "1d_patches" has none (DeiT III). `layer_scale` is the initial
    value of the factors of DeiT III; None is a network without them.
    """

    family: ClassVar[str] = "deit"

    image: int | tuple[int, int] = 224
    patch: int = 16
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    prefix: tuple[Literal["cls", "dist"], ...] = ("cls",)
    position: Literal["1d", "1d_patches"] = "1d"
    resize: Resize = "bicubic"
    layer_scale: float | None = None
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, self.patch, self.patch)


class DeiT(ColumnEncoder):
    """The encoder of DeiT: images (b, channels, height, width) -> Features of one column."""

    Config = DeiTConfig

    def __init__(self, config: DeiTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            prefix=c.prefix,
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="cls",
            sizes="any",
            channels=c.channels,
        )
        covered = len(c.prefix) if c.position == "1d" else 0
        grid = (c.size[0] // c.patch, c.size[1] // c.patch)
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.prefix = Prefix(c.width, len(c.prefix))
        self.position = LearnedPosition(c.width, grid, prefix=covered, resize=c.resize)
        self.blocks = Column(_block(c, rate) for rate in _rates(c))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        truncated(self, 0.02)

    @property
    def plain_column(self) -> bool:
        """True for every DeiT."""
        return True

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, prefix + row·col, d)."""
        return placed(self.embed(images), self.prefix, self.position)


def _rates(c: DeiTConfig) -> list[float]:
    """Return the drop rate of each block; DeiT III uses the same rate for all."""
    return stochastic_depth_rates(c.drop_path, c.depth) if c.layer_scale is None else [c.drop_path] * c.depth


def _block(c: DeiTConfig, rate: float) -> PreNorm:
    attention, mlp = SelfAttention(c.width, c.heads), Mlp(c.width, c.hidden or 4 * c.width)
    scale = c.layer_scale
    return PreNorm(c.width, attention, mlp, drop_path=rate, layer_scale=scale, eps=c.norm_eps)


_SIZES = (
    ("ti16", DeiTConfig(width=192, heads=3)),
    ("s16", DeiTConfig()),
    ("b16", DeiTConfig(width=768, heads=12)),
)
_THIRD = DeiTConfig(position="1d_patches", layer_scale=1e-4)

PRESETS: Mapping[str, DeiTConfig] = MappingProxyType(
    {
        **{f"deit_{name}": config for name, config in _SIZES},
        **{f"deit_{name}_distilled": replace(c, prefix=("cls", "dist")) for name, c in _SIZES},
        "deit3_s16": _THIRD,
        "deit3_m16": replace(_THIRD, width=512, heads=8),
        "deit3_b16": replace(_THIRD, width=768, heads=12),
        "deit3_l16": replace(_THIRD, width=1024, depth=24, heads=16),
        "deit3_h14": replace(_THIRD, patch=14, width=1280, depth=32, heads=16),
    }
)
