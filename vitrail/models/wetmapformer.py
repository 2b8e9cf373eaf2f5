"""WetMapFormer: Jamali et al. 2023, Int. J. Appl. Earth Obs. Geoinf. 120, 103333, as in github.com/aj1365/WetMapFormer.

Made to classify the centre of windows of 8 x 8 pixels with 16 bands of Sentinel-1 and Sentinel-2. An extractor
convolves along the bands of each pixel, then over pixels with one step down and up; two stages follow on grids that are
4 and 8 times coarser, of convolution blocks and of local window attention (`layers/neighbourhood_attention.py`):

    pos = x + dw1x1(x) + dw3x3(x) + dw5x5(x)
    t = conv1x1(dw5x5(conv1x1(BN(pos))))  or  t = attention(LN(x))
    a = x + pos + t,   x ← x + a + MLP(norm(a))

**As published, another network runs than the paper describes.** Its notebook calls the block by position, one place
off: the attention has a window of one pixel, so it is a projection of the values, and the MLP has no hidden unit, so it
adds its second bias. `as_published` builds that network, for files that were trained with it; the default is the
intended one. The large one has heads of 1024 on 256 channels. The notebook rounds this to no head and builds
convolution blocks in the second stage, too; as intended it has one head of 256 here, like the medium one.

On 8 x 8 pixels the second stage has one token, whose window holds eight pads: attention over places begins with 16
pixels. Axes: b batch, n tokens in raster order, d width. Maps are padded as in TensorFlow, a step down at the bottom
and the right only. Initial values: Keras' (Glorot uniform, biases 0). Running statistics are averaged with torch's
momentum 0.1, not Keras' 0.01: trainings here can be shorter than a hundred steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.band_extractor import INNER, BandExtractor, Decoded
from vitrail.layers.block import Mlp
from vitrail.layers.encoder import NOTHING, Column, Encoder
from vitrail.layers.neighbourhood_attention import NeighbourhoodAttention
from vitrail.layers.patch_embedding import Sized, check_channels, check_size, check_windows, project_patches
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens


@dataclass(frozen=True, slots=True)
class WetMapFormerConfig(Sized):
    """The settings of a WetMapFormer; the defaults are those of the small one.

    `image` is the intended size; no parameter depends on it. `widths` and `depths` are those of the two stages.
    `head_dim` is the width of a head in the second stage; 0 means convolution blocks there, too. `kernel` is the side
    of the attention window, `hidden` the MLP's in multiples of the width. `as_published` (see above) ignores both.
    """

    family: ClassVar[str] = "wetmapformer"

    image: int | tuple[int, int] = 8
    channels: int = 16
    widths: tuple[int, ...] = (128, 256)
    depths: tuple[int, ...] = (1, 1)
    head_dim: int = 32
    kernel: int = 3
    hidden: int = 4
    as_published: bool = False

    def __post_init__(self) -> None:
        """Raise a SettingError for another number of stages than two."""
        if len(self.widths) != 2 or len(self.depths) != 2 or min(*self.widths, *self.depths) < 1:
            raise SettingError(
                f"A WetMapFormer has two stages, each with a width and a depth, not {self.widths} and {self.depths}."
            )

    @property
    def heads(self) -> int:
        """The heads in the second stage; 0 if it has convolution blocks."""
        if not self.head_dim:
            return 0
        heads = self.widths[1] // self.head_dim
        return heads if self.as_published else max(1, heads)


class Embed(nn.Module):
    """Project squares side by side, then a norm: (b, c, row, col) -> Tokens of (b, row·col / patch², d)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, patch, patch)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tokens:
        """(b, c, row, col) -> Tokens of (b, row·col / patch², d)."""
        tokens = project_patches(x, self.project)
        return tokens.with_x(self.norm(tokens.x))


class TokenNorm(nn.BatchNorm1d):
    """A batch norm of tokens over images and places: (b, n, d) -> (b, n, d)."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d)."""
        return super().forward(x.flatten(0, 1)).view(x.shape)


class EmptyMlp(nn.Module):
    """What an MLP without hidden units adds, its second bias: Tokens -> (d,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, n, d) -> (d,)."""
        return self.bias


class ConvMixer(nn.Module):
    """conv1x1(dw5x5(conv1x1(BN(pos)))): Tokens of positions -> (b, n, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = TokenNorm(width)
        self.rise, self.fall = nn.Linear(width, width), nn.Linear(width, width)
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d)."""
        risen = tokens.with_x(self.rise(self.norm(tokens.x)))
        out: Tensor = self.fall(_near(risen, self.near.weight, self.near.bias))
        return out


class Block(nn.Module):
    """A block of convolutions, or of local window attention if it has `heads`: Tokens -> Tokens."""

    def __init__(self, width: int, heads: int, c: WetMapFormerConfig) -> None:
        super().__init__()
        self.pos1, self.pos3, self.pos5 = (
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (1, 3, 5)
        )
        self.mixer = None if heads else ConvMixer(width)
        self.norm1 = nn.LayerNorm(width, eps=1e-5) if heads else None
        self.attention = (
            NeighbourhoodAttention(width, heads, 1 if c.as_published else c.kernel) if heads else None
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if heads else TokenNorm(width)
        self.mlp = EmptyMlp(width) if c.as_published else Mlp(width, c.hidden * width)
        if c.as_published:
            self.norm2.requires_grad_(False)  # nothing reads it; it stays because files hold it

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        x = tokens.x
        pos = self._positions(tokens)
        if self.attention is None or self.norm1 is None:
            assert self.mixer is not None, "a block has an attention or a convolution"
            mixed = self.mixer(tokens.with_x(pos))
        else:
            mixed = self.attention(tokens.with_x(self.norm1(x)), record)
        a = x + pos + mixed
        fed = self.mlp(tokens if isinstance(self.mlp, EmptyMlp) else tokens.with_x(self.norm2(a)))
        return tokens.with_x(x + a + fed)

    def _positions(self, tokens: Tokens) -> Tensor:
        """Return x plus the convolutions of three sizes, which are one convolution of the largest."""
        one, three = F.pad(self.pos1.weight + 1, (2, 2, 2, 2)), F.pad(self.pos3.weight, (1, 1, 1, 1))
        biases = [one.bias for one in (self.pos1, self.pos3, self.pos5) if one.bias is not None]
        bias = torch.stack(biases).sum(0)
        return _near(tokens, self.pos5.weight + three + one, bias)


def _near(tokens: Tokens, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel over the grid: Tokens of (b, n, d), a kernel of (d, 1, k, k) -> (b, n, d)."""
    # Taps that are always outside of a small map are left out: on 1 x 1 tokens this is one product.
    side = min(kernel.shape[-1], 2 * max(tokens.grid) - 1)
    cut = (kernel.shape[-1] - side) // 2
    kernel = kernel[..., cut : cut + side, cut : cut + side]
    if side == 1:
        scaled = tokens.x * kernel[:, 0, 0, 0]
        return scaled if bias is None else scaled + bias
    maps = F.conv2d(tokens.map(), kernel, bias, padding=side // 2, groups=len(kernel))
    return maps.flatten(2).mT


class WetMapFormer(Encoder):
    """WetMapFormer: images (b, channels, height, width) -> Features; levels: the extractor's map and two stages."""

    Config = WetMapFormerConfig

    def __init__(self, config: WetMapFormerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.widths[1],
            strides=(1, 4, 8),
            attention="softmax" if c.heads else "none",
            blocks=c.depths[1] if c.heads else 0,
            widths=(INNER, *c.widths),
            channels=c.channels,
        )
        self.extractor = BandExtractor(c.channels)
        self.embeds = nn.ModuleList([Embed(INNER, c.widths[0], 4), Embed(c.widths[0], c.widths[1], 2)])
        self.stages = nn.ModuleList(
            Column(Block(width, heads, c) for _ in range(depth))
            for width, depth, heads in zip(c.widths, c.depths, (0, c.heads), strict=True)
        )
        self.norm = TokenNorm(c.widths[1])
        _glorot(self)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width), multiples of 8 -> Features with tokens (b, row·col, d) of the last stage."""
        self.refuse(given)
        check_channels(images, self.config.channels)
        check_size(images, self.spec.unit)
        maps = self.extractor(images)
        fine = self.stages[0](self.embeds[0](maps), record)
        tokens = self._coarse(fine, record)
        return Features(tokens, (maps, fine.map(), tokens.map()))

    def sliding(self, images: Tensor, size: tuple[int, int]) -> Features:
        """Encode all windows of `size`; what they share is computed once, so that only rounding differs."""
        check_channels(images, self.config.channels)
        check_size(images.new_empty(size), self.spec.unit)
        check_windows(images, size)
        if self.training:  # the statistics of a batch depend on how often each pixel is in it
            return super().sliding(images, size)
        stem = Stem(self.extractor, cast(Embed, self.embeds[0]))
        tokens = [
            self._coarse(self.stages[0](stem(maps))).x
            for image in images
            for maps in self.extractor.windows(image[None], size)
        ]
        return Features(Tokens(torch.cat(tokens), (size[0] // self.spec.unit, size[1] // self.spec.unit)))

    def _coarse(self, fine: Tokens, record: Recorder | None = None) -> Tokens:
        tokens: Tokens = self.stages[1](self.embeds[1](fine.map()), record)
        return tokens.with_x(self.norm(tokens.x))


class Stem:
    """The end of the extractor and the first embedding as one, without the maps at full resolution between.

    Repeating pixels, the convolution `merge`, the sum and the projection of patches are linear, so they are
    two convolutions of the maps at half of the resolution: (Decoded) -> Tokens of (b, n, d).
    """

    def __init__(self, extractor: BandExtractor, embed: Embed) -> None:
        project, merge = embed.project.weight, extractor.merge.weight  # (d, m, 4, 4), (m, c, 3, 3)
        self.norm = embed.norm
        # Of repeated pixels a patch reads 2 x 2 cells, and with the 3 x 3 convolution one pixel more on each side.
        self.deep = _cells(project)
        turned = merge.flip(2, 3).transpose(0, 1)
        self.around = _cells(F.pad(F.conv2d(F.pad(project, (2, 2, 2, 2)), turned), (1, 1, 1, 1)))
        assert embed.project.bias is not None, "the projection has a bias"
        assert extractor.merge.bias is not None, "the convolution has a bias"
        self.bias = embed.project.bias + project.sum((2, 3)) @ extractor.merge.bias

    def __call__(self, maps: Decoded) -> Tokens:
        """Maps at half of the resolution -> Tokens of (b, n, d)."""
        x = F.conv2d(maps.around, self.around, self.bias, stride=2, padding=1)
        x += F.conv2d(maps.deep, self.deep, stride=2)
        return Tokens(self.norm(x.flatten(2).mT), (x.shape[2], x.shape[3]))


def _cells(kernel: Tensor) -> Tensor:
    """Return the kernel for cells of 2 x 2 equal pixels: (d, c, 2r, 2s) -> (d, c, r, s)."""
    return kernel.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))


@torch.no_grad()
def _glorot(network: nn.Module) -> None:
    """Fill convolutions and linear layers as Keras does, which counts the fans of a channelwise kernel as one group."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            field = weight[0, 0].numel()
            inputs, outputs = weight.shape[1], weight.shape[0]
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                inputs, outputs = module.groups, 1
            bound = sqrt(6 / (field * (inputs + outputs)))
            weight.uniform_(-bound, bound)
            if module.bias is not None:
                module.bias.zero_()


PRESETS: Mapping[str, WetMapFormerConfig] = MappingProxyType(
    {
        "wetmapformer": WetMapFormerConfig(),
        "wetmapformer_m": WetMapFormerConfig(depths=(3, 4), head_dim=256),
        "wetmapformer_l": WetMapFormerConfig(depths=(6, 8), head_dim=1024),
    }
)
