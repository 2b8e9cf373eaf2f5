"""CLIP: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020.

An image and its caption are encoded by two Transformers, and trained to be near each other and far from all others of
the batch. This page is the image tower (§2.4); the text tower is `layers/text_tower.py`, the common space
`layers/contrastive_head.py`. The image tower is a ViT (see `vit.py`) with these differences: patches without bias, one
more norm before the blocks, and x·σ(1.702 x) for GELU; most trainings of others (OpenCLIP) have the exact GELU.

    z_0 = LN([x_class; x_1 E; …; x_N E] + E_pos),  then eqs. 2 to 4 of ViT

Axes: b batch, n tokens (class, then patches in raster order), d width, row col patch grid. Initial values are those of
the official code: class token and positions N(0, 1 / width), blocks as its text tower's (`scaled_by_depth`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Gelu, Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_tiles
from vitrail.layers.position import LearnedPosition, Resize, placed
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import scaled_by_depth


@dataclass(frozen=True, slots=True)
class ClipConfig(Sized):
    """The settings of the image tower of a CLIP; the defaults are ViT-B/32.

    `image` is the size of the position table, one number or (height, width). For other sizes the table is resized by
    `resize`. `gelu` is "quick" in OpenAI's networks and "exact" in most others.
    """

    family: ClassVar[str] = "clip"

    image: int | tuple[int, int] = 224
    patch: int = 32
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None  # of the MLP; None: 4 · width
    gelu: Gelu = "quick"
    resize: Resize = "bicubic_antialias"
    norm_eps: float = 1e-5
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, self.patch, self.patch)


class Clip(ColumnEncoder):
    """The image tower of CLIP: images (b, channels, height, width) -> Features of one column."""

    Config = ClipConfig

    def __init__(self, config: ClipConfig) -> None:
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
            sizes="any",
            channels=c.channels,
        )
        grid = (c.size[0] // c.patch, c.size[1] // c.patch)
        self.embed = PatchEmbed(c.width, c.patch, c.channels, bias=False)
        self.prefix = Prefix(c.width)
        self.position = LearnedPosition(c.width, grid, prefix=1, resize=c.resize)
        self.norm_pre = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        for table in (self.prefix.tokens, self.position.table):
            nn.init.normal_(table, std=c.width**-0.5)
        scaled_by_depth(list(self.blocks), c.width)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, 1 + row·col, d)."""
        tokens = placed(self.embed(images), self.prefix, self.position)
        return tokens.with_x(self.norm_pre(tokens.x))


def _block(c: ClipConfig, rate: float) -> PreNorm:
    attention, mlp = SelfAttention(c.width, c.heads), Mlp(c.width, c.hidden or 4 * c.width, kind=c.gelu)
    return PreNorm(c.width, attention, mlp, drop_path=rate, eps=c.norm_eps)


_L14 = ClipConfig(patch=14, width=1024, depth=24, heads=16)

PRESETS: Mapping[str, ClipConfig] = MappingProxyType(
    {
        # For images of 32 and 64 pixels, to train on one's own captions.
        "clip_digits": ClipConfig(image=32, patch=4, width=64, depth=4, heads=4, gelu="exact"),
        "clip_s8": ClipConfig(image=64, patch=8, width=256, depth=6, heads=4, gelu="exact"),
        "clip_b32": ClipConfig(),  # OpenAI's: table 20
        "clip_b16": ClipConfig(patch=16),
        "clip_l14": _L14,
        "clip_l14_336": replace(_L14, image=336),
        # OpenCLIP's: Cherti et al. 2023, arXiv:2212.07143.
        "clip_h14": ClipConfig(patch=14, width=1280, depth=32, heads=16, gelu="exact"),
    }
)
