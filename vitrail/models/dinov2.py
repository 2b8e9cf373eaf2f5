"""DINOv2: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision", arXiv:2304.07193.

A ViT (see `vit.py`) trained without labels, whose frozen features are useful for many tasks. Its differences: patches
of 14 pixels, learned factors on both branches of every block (layer scale), a gated MLP in the giant model and, in
later networks, register tokens: additional learned tokens without a position, between the class token and the
patches, for information that the network would otherwise store in patches of uniform areas (Darcet et al. 2023,
arXiv:2309.16588).

    x ← x + γ_1 ⊙ MSA(LN(x)),  x ← x + γ_2 ⊙ MLP(LN(x))

Axes: b batch, n tokens (class, registers, then patches in raster order), d width, row col patch grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, SwiGlu, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_tiles, side_and_step, tiled
from vitrail.layers.position import LearnedPosition, Resize, placed
from vitrail.layers.tokens import FeatureSpec, Tokens


@dataclass(frozen=True, slots=True)
class DinoV2Config(Sized):
    """The settings of a DINOv2; the defaults are ViT-S/14 without registers.

    `image` is the size of the position table, one number or (height, width). For other sizes the table is resized by
    `resize`. `patch` is the side of a patch, or (side, step) for patches that overlap. `position` "1d" has a row for
    the class token, "1d_patches" has none (timm's files of the networks with registers). `layer_scale` is the initial
    value of the factors.
    """

    family: ClassVar[str] = "dinov2"

    image: int | tuple[int, int] = 518
    patch: int | tuple[int, int] = 14
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    mlp: Literal["gelu", "swiglu"] = "gelu"
    registers: int = 0
    position: Literal["1d", "1d_patches"] = "1d"
    resize: Resize = "bicubic"
    layer_scale: float = 1e-5
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, *side_and_step(self.patch))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tiled(self.size, *side_and_step(self.patch))


class DinoV2(ColumnEncoder):
    """The encoder of DINOv2: images (b, channels, height, width) -> Features of one column."""

    Config: ClassVar[type[Any]] = DinoV2Config

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        c = self.config = config
        side, step = side_and_step(c.patch)
        self.spec = FeatureSpec(
            c.width,
            strides=(step,),
            overlap_margin=(side - step) / 2,
            prefix=("cls", *["reg"] * c.registers),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="cls",
            sizes="any",
            channels=c.channels,
        )
        covered = 1 if c.position == "1d" else 0
        self.embed = PatchEmbed(c.width, side, c.channels, step=step)
        self.prefix = Prefix(c.width)
        self.position = LearnedPosition(c.width, c.grid, prefix=covered, resize=c.resize)
        self.registers = Prefix(c.width, c.registers) if c.registers else None
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)

    @property
    def plain_column(self) -> bool:
        """Whether its patches do not overlap and there are no registers."""
        return self.registers is None and isinstance(self.config.patch, int)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, prefix + row·col, d)."""
        return self._with_registers(placed(self.embed(images), self.prefix, self.position))

    def _with_registers(self, tokens: Tokens) -> Tokens:
        if self.registers is None:
            return tokens
        cls, rest = tokens.x[:, :1], self.registers(Tokens(tokens.patches))
        return Tokens(torch.cat([cls, rest.x], 1), tokens.grid, tokens.prefix + rest.prefix)


def _block(c: DinoV2Config, rate: float) -> PreNorm:
    hidden = c.hidden or 4 * c.width
    mlp = SwiGlu(c.width, hidden) if c.mlp == "swiglu" else Mlp(c.width, hidden)
    return PreNorm(
        c.width,
        SelfAttention(c.width, c.heads),
        mlp,
        drop_path=rate,
        layer_scale=c.layer_scale,
        eps=c.norm_eps,
    )


_SIZES = (
    ("dinov2_s14", DinoV2Config()),
    ("dinov2_b14", DinoV2Config(width=768, heads=12)),
    ("dinov2_l14", DinoV2Config(width=1024, depth=24, heads=16)),
    ("dinov2_g14", DinoV2Config(width=1536, depth=40, heads=24, hidden=4096, mlp="swiglu")),
)

PRESETS: Mapping[str, DinoV2Config] = MappingProxyType(
    {
        **dict(_SIZES),
        **{f"{n}_reg4": replace(c, registers=4, resize="bicubic_antialias") for n, c in _SIZES},
    }
)
