"""MLP-Mixer: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", arXiv:2105.01601.

The patches of ViT, without attention and without position embeddings. In every block one MLP mixes the places, the same
for each channel, and another MLP mixes the channels, the same for each place:

    U = X + W_2 GELU(W_1 LN(X))      over the n places of each channel    (1)
    Y = U + W_4 GELU(W_3 LN(U))      over the d channels of each place

then LN, and the mean of all places. The first MLP has a weight for every pair of places, so a network takes one image
size only. Axes: b batch, n tokens in raster order, d width, row col patch grid. Initial values are those of Flax:
N(0, 1 / fan-in) truncated at two deviations, biases 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.block import DropPath, Gelu, Mlp, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Sized, check_tiles
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import lecun


@dataclass(frozen=True, slots=True)
class MixerConfig(Sized):
    """The settings of a Mixer; the defaults are Mixer-S/16.

    `image` is the only accepted size, one number or (height, width); `places` is the hidden width of the MLP over
    places (the paper's D_S), `hidden` that of the MLP over channels (D_C).
    """

    family: ClassVar[str] = "mixer"

    image: int | tuple[int, int] = 224
    patch: int = 16
    channels: int = 3
    width: int = 512
    depth: int = 8
    places: int = 256
    hidden: int = 2048
    gelu: Gelu = "exact"
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, self.patch, self.patch)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.size[0] // self.patch, self.size[1] // self.patch


class Mixer(ColumnEncoder):
    """The MLP-Mixer: images (b, channels, height, width) -> Features of one column."""

    Config = MixerConfig

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            pool="mean",
            sizes="fixed",
            depth=c.depth,
            channels=c.channels,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.blocks = Column(MixerBlock(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, row·col, d)."""
        tokens: Tokens = self.embed(images)
        if tokens.grid != self.config.grid:
            size = " x ".join(map(str, self.config.size))
            raise SettingError(
                f"This Mixer was built for {size} pixels and takes no other size. Resize the image, or build it "
                "for the other size (image=…)."
            )
        return tokens


class MixerBlock(nn.Module):
    """Eq. 1: mix the places, then the channels: Tokens -> Tokens."""

    def __init__(self, c: MixerConfig, rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.over_places = Mlp(c.grid[0] * c.grid[1], c.places, kind=c.gelu)
        self.norm2 = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.over_channels = Mlp(c.width, c.hidden, kind=c.gelu)
        self.drop = DropPath(rate)
        for mlp in (self.over_places, self.over_channels):
            lecun(mlp.rise)
            lecun(mlp.fall)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        transposed = Tokens(self.norm1(tokens.x).mT)  # (b, d, n): an MLP works on the last axis
        x = tokens.x + self.drop(self.over_places(transposed).mT)
        x = x + self.drop(self.over_channels(tokens.with_x(self.norm2(x))))
        return tokens.with_x(x)


PRESETS: Mapping[str, MixerConfig] = MappingProxyType(  # table 1
    {
        "mixer_s32": MixerConfig(patch=32),
        "mixer_s16": MixerConfig(),
        "mixer_b32": MixerConfig(patch=32, width=768, depth=12, places=384, hidden=3072),
        "mixer_b16": MixerConfig(width=768, depth=12, places=384, hidden=3072),
        "mixer_l32": MixerConfig(patch=32, width=1024, depth=24, places=512, hidden=4096),
        "mixer_l16": MixerConfig(width=1024, depth=24, places=512, hidden=4096),
        "mixer_h14": MixerConfig(patch=14, width=1280, depth=32, places=640, hidden=5120),
    }
)
