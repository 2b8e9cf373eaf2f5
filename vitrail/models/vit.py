"""ViT: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929 (with its equation numbers).

An image is cut into square patches; each becomes a token, a vector of `width` numbers. A learned class token is put in
front, a learned vector is added for every position, and `depth` equal blocks exchange information between the tokens:

    z_0  = [x_class; x_1 E; …; x_N E] + E_pos              (1)
    z'_l = MSA(LN(z_l-1)) + z_l-1        l = 1 … depth     (2)
    z_l  = MLP(LN(z'_l)) + z'_l                            (3)
    y    = LN(z_depth), whose class token is the output    (4)

MSA (eqs. 5-8): each of `heads` heads projects every token to a query q, a key k and a value v of e = width / heads
numbers, and computes softmax(q kᵀ / √e) v; the outputs of the heads are concatenated and projected once more. The MLP
has two layers of `hidden` and `width` numbers with a GELU between. Axes: b batch, n tokens, d width, row col patch
grid.

Initial values are those of Google's code: Xavier-uniform projections (queries, keys and values separately), MLP biases
N(0, 1e-6), positions N(0, 0.02), class token 0, patches as in Flax's convolution. The head is a separate module. A
hybrid (§3.1) cuts its patches from the output of a ResNet stem instead of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn

from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Gelu, Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import NOTHING, Column, ColumnEncoder
from vitrail.layers.patch_embedding import (
    PatchEmbed,
    Prefix,
    Sized,
    check_size,
    check_tiles,
    side_and_step,
    tiled,
)
from vitrail.layers.position import (
    GridPosition,
    GridSines,
    LearnedPosition,
    RelativeVectors,
    Resize,
    placed,
)
from vitrail.layers.resnet_stem import ResNetStem, stem_stride
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens


@dataclass(frozen=True, slots=True)
class ViTConfig(Sized):
    """The settings of a ViT; the defaults are ViT-S/16.

    `image` is the size of the position table, in pixels: one number or (height, width). For other sizes the table is
    resized by `resize`. `patch` is the side of a patch, or (side, step) with a step smaller than the side: patches that
    overlap, on a denser grid. With `prefix` () there is no class token. `position` "1d" is a table that also has a row
    for the class token, as in the paper; "1d_patches" has none (big_vision); "2d", "relative" and "none" are the
    variants of table 8 in the paper; "sine" is MAE's fixed table, which is resized as MAE does.
    """

    family: ClassVar[str] = "vit"

    image: int | tuple[int, int] = 224
    patch: int | tuple[int, int] = 16
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    gelu: Gelu = "exact"
    prefix: tuple[Literal["cls"], ...] = ("cls",)
    position: Literal["1d", "1d_patches", "2d", "relative", "sine", "none"] = "1d"
    resize: Resize = "bilinear_corners"
    norm_eps: float = 1e-6
    drop_path: float = 0.0  # of the last block; linear from 0 at the first block
    stem: tuple[int, ...] = ()  # of a hybrid: width, then blocks of each stage; R50 is (64, 3, 4, 9)

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, *self.spans)

    @property
    def spans(self) -> tuple[int, int]:
        """The pixels of the image that a patch spans, and the pixels from one patch to the next."""
        side, step = side_and_step(self.patch)
        stem = stem_stride(self.stem[1:]) if self.stem else 1
        return side * stem, step * stem

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tiled(self.size, *self.spans)


class ViT(ColumnEncoder):
    """The plain Vision Transformer: images (b, channels, height, width) -> Features of one column."""

    Config = ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = self.config = config
        span, step = c.spans
        self.spec = FeatureSpec(
            c.width,
            strides=(step,),
            overlap_margin=(span - step) / 2,
            prefix=c.prefix,
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="cls" if c.prefix else "mean",
            sizes="any",
            channels=c.channels,
        )
        stem = ResNetStem(c.stem[0], c.stem[1:], c.channels) if c.stem else None
        self.stem = stem or nn.Identity()
        side, step = side_and_step(c.patch)
        self.embed = PatchEmbed(c.width, side, stem.out_channels if stem else c.channels, step=step)
        self.prefix = Prefix(c.width, len(c.prefix)) if c.prefix else nn.Identity()
        self.position = _position(c, c.grid)
        self.blocks = Column(_block(c, c.grid, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)

    @property
    def plain_column(self) -> bool:
        """Whether its patches are cut from the image itself and do not overlap."""
        return not self.config.stem and isinstance(self.config.patch, int)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, prefix + row·col, d)."""
        tokens = self.blocks(self.begin(images, given), record)  # eqs. 2 and 3
        return Features(tokens.with_x(self.norm(tokens.x)).unmerged())  # eq. 4

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, prefix + row·col, d)."""
        span, step = self.config.spans
        check_size(images, step, span - step)
        return placed(self.embed(self.stem(images)), self.prefix, self.position)  # eq. 1


def _position(c: ViTConfig, grid: tuple[int, int]) -> nn.Module:
    match c.position:
        case "1d" | "1d_patches":
            covered = len(c.prefix) if c.position == "1d" else 0
            return LearnedPosition(c.width, grid, prefix=covered, resize=c.resize)
        case "2d":
            return GridPosition(c.width, grid)
        case "sine":
            return GridSines(c.width, grid, prefix=len(c.prefix))
        case "relative" | "none":
            return nn.Identity()  # relative positions are used in the attention only


def _block(c: ViTConfig, grid: tuple[int, int], rate: float) -> PreNorm:
    relative = RelativeVectors(c.width // c.heads, grid) if c.position == "relative" else None
    attention = SelfAttention(c.width, c.heads, relative=relative)
    mlp = Mlp(c.width, c.hidden or 4 * c.width, kind=c.gelu)
    return PreNorm(c.width, attention, mlp, drop_path=rate, eps=c.norm_eps)


PRESETS: Mapping[str, ViTConfig] = MappingProxyType(
    {
        "vit_digits": ViTConfig(image=32, patch=4, width=64, depth=4, heads=4),
        "vit_digits_narrow": ViTConfig(image=32, patch=4, width=32, depth=4, heads=2),
        "vit_ti16": ViTConfig(width=192, heads=3),  # Ti and S: Steiner et al. 2021, arXiv:2106.10270
        "vit_s32": ViTConfig(patch=32),
        "vit_s16": ViTConfig(),
        "vit_b32": ViTConfig(patch=32, width=768, heads=12),  # B, L and H: table 1
        "vit_b16": ViTConfig(width=768, heads=12),
        "vit_b8": ViTConfig(patch=8, width=768, heads=12),
        "vit_l32": ViTConfig(patch=32, width=1024, depth=24, heads=16),
        "vit_l16": ViTConfig(width=1024, depth=24, heads=16),
        "vit_h14": ViTConfig(patch=14, width=1280, depth=32, heads=16),
        # Hybrids. The authors' name of the first one: a stem of stride 4 and patches of 8 span 32 pixels.
        "vit_r_ti16": ViTConfig(patch=8, width=192, heads=3, stem=(64,)),
        "vit_r26_s32": ViTConfig(patch=1, stem=(64, 2, 2, 2, 2)),
        "vit_r50_b16": ViTConfig(patch=1, width=768, heads=12, stem=(64, 3, 4, 9)),
        "vit_r50_l32": ViTConfig(patch=1, width=1024, depth=24, heads=16, stem=(64, 3, 4, 6, 3)),
    }
)
