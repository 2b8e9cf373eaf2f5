"""MAE: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377.

A ViT (see `vit.py`) that learns without labels: it sees a quarter of the patches, drawn at random, and a small decoder
predicts the pixels of the others (§3). Positions are fixed sines and cosines of column and row, so that the tokens of
the seen patches say where they are:

    z = ViT([x_class; x_i E + p_i, i seen]),  ŷ = decoder(z, a mask token at every other place)
    loss = the mean over hidden patches of |ŷ_i - y_i|² / pixels,  y_i normalised to mean 0, deviation 1

Afterwards the decoder is left out, and classifiers read the mean of the patches, as the authors fine-tune. Theirs have
no norm after the last block; the mean is normalised instead (`pooled`).

Initial values are those of the official code: Xavier-uniform matrices, biases 0, class and mask token N(0, 0.02).
Axes: b batch, n tokens (class, then the patches that are seen), d width, row col patch grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import NOTHING, Column, ColumnEncoder
from vitrail.layers.heads import Head
from vitrail.layers.masked_decoder import MaskedDecoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_tiles, tiled
from vitrail.layers.position import GridSines, placed
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import CLASS, Features, FeatureSpec, Tokens
from vitrail.layers.weight_init import as_in_mae

TASK = "pretrain"
"""The task that it has a head for."""


@dataclass(frozen=True, slots=True)
class MAEConfig(Sized):
    """The settings of an MAE; the defaults are ViT-B/16 with the published decoder.

    `image` is the size of the position table, one number or (height, width); for other sizes the table is resized.
    `decoder` is the width, the blocks and the heads of the decoder. With `pooled` the mean of the patches is
    normalised, and the tokens are not.
    """

    family: ClassVar[str] = "mae"
    position: ClassVar[str] = "1d"  # a table with a row for the class token

    image: int | tuple[int, int] = 224
    patch: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None  # of the MLP; None: 4 · width
    decoder: tuple[int, int, int] = (512, 8, 16)
    pooled: bool = False
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, self.patch, self.patch)


class MAE(ColumnEncoder):
    """The encoder of MAE: images (b, channels, height, width) -> Features of one column, of all patches or of some."""

    Config = MAEConfig

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            prefix=(CLASS,),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="own" if c.pooled else "mean",
            pooled_width=c.width if c.pooled else 0,
            pooled_patches=c.pooled,
            sizes="any",
            channels=c.channels,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.prefix = Prefix(c.width)
        self.position = GridSines(c.width, tiled(c.size, c.patch, c.patch), prefix=1)
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.Identity() if c.pooled else nn.LayerNorm(c.width, eps=c.norm_eps)
        self.fc_norm = nn.LayerNorm(c.width, eps=c.norm_eps) if c.pooled else None
        as_in_mae(self)
        nn.init.xavier_uniform_(self.embed.project.weight.flatten(1))
        nn.init.normal_(self.prefix.tokens, std=0.02)

    @property
    def plain_column(self) -> bool:
        """Whether the tokens are normalised, and not their mean."""
        return self.fc_norm is None

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, 1 + row·col, d)."""
        return placed(self.embed(images), self.prefix, self.position)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, 1 + patches, d)."""
        return self._pooled(super().forward(images, given=given, record=record))

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """(b, channels, height, width) -> Features whose levels are the maps after `blocks`."""
        return self._pooled(super().tap(images, blocks, given=given, record=record))

    def _pooled(self, features: Features) -> Features:
        if self.fc_norm is None:
            return features
        return features._replace(pooled=self.fc_norm(features.tokens.patches.mean(1)))

    def own_head(self, task: str, classes: int) -> Head | None:
        """Return the decoder of the paper for `pretrain`."""
        c = self.config
        if task != TASK:
            return None
        return MaskedDecoder(self.spec, c.patch, c.channels, *c.decoder, eps=c.norm_eps)


def _block(c: MAEConfig, rate: float) -> PreNorm:
    attention, mlp = SelfAttention(c.width, c.heads), Mlp(c.width, c.hidden or 4 * c.width)
    return PreNorm(c.width, attention, mlp, drop_path=rate, eps=c.norm_eps)


PRESETS: Mapping[str, MAEConfig] = MappingProxyType(
    {
        "mae_digits": MAEConfig(image=32, patch=4, width=64, depth=4, heads=4, decoder=(64, 2, 4)),
        "mae_cifar": MAEConfig(image=32, patch=4, width=192, heads=3, decoder=(128, 2, 4)),
        # Not of the paper: sizes of ViT for few images, with decoders in proportion.
        "mae_ti16": MAEConfig(width=192, heads=3, decoder=(192, 4, 6)),
        "mae_s16": MAEConfig(width=384, heads=6, decoder=(256, 4, 8)),
        "mae_b16": MAEConfig(),  # B, L and H: table 3 and the official code
        "mae_l16": MAEConfig(width=1024, depth=24, heads=16),
        "mae_h14": MAEConfig(patch=14, width=1280, depth=32, heads=16),
    }
)
