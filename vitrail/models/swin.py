"""Swin: Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv:2103.14030.

Tokens attend within square windows of `window` x `window` places, so that the cost is linear in the image size. Every
second block shifts the grid by half a window, so that neighbours in different windows attend to each other (§3.2); a
mask separates tokens from opposite edges that the shift brings together. After each stage except the last, four
neighbours are merged into one token of twice the width (§3.1): the maps of the stages form a pyramid.

    x ← x + (S)W-MSA(LN(x)),  x ← x + MLP(LN(x))           (3)
    Attention(q, k, v) = softmax(q kᵀ / √e + B) v          (4)   B learned for each offset within a window

A stage whose grid is not larger than the window has one window and is not shifted. Axes: b batch, g windows,
n tokens in raster order, d width, h heads, row col grid. Initial values: N(0, 0.02), biases 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import NOTHING, Column, Encoder
from vitrail.layers.patch_embedding import PatchEmbed, Sized, check_size
from vitrail.layers.patch_merging import PatchMerging
from vitrail.layers.position import LearnedPosition
from vitrail.layers.pyramid import Pyramid
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.layers.weight_init import truncated
from vitrail.layers.window_attention import WindowAttention


@dataclass(frozen=True, slots=True)
class SwinConfig(Sized):
    """The settings of a Swin; the defaults are Swin-T.

    `image`, one number or (height, width), determines which stages are smaller than the window. `position` "absolute"
    adds a learned table to the patches in addition to the relative biases. `hidden` is in multiples of the width.
    """

    family: ClassVar[str] = "swin"

    image: int | tuple[int, int] = 224
    patch: int = 4
    channels: int = 3
    width: int = 96  # of the first stage; every next stage doubles it
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    hidden: float = 4.0
    position: Literal["relative", "absolute"] = "relative"
    norm_eps: float = 1e-5
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for grids that the windows do not tile."""
        if len(self.depths) != len(self.heads):
            raise SettingError(
                f"{len(self.depths)} stages need {len(self.depths)} numbers of heads, not {self.heads}."
            )
        if not self.tiles(self.size):
            height, width = self.size
            raise SettingError(
                f"{height} x {width} pixels do not divide into windows of {self.window} in every stage. Squares that "
                f"do are {' and '.join(map(str, self._near()))} pixels wide; or use another window."
            )

    def tiles(self, size: tuple[int, int]) -> bool:
        """Tell whether the windows of a network for this size, in pixels, tile the grid of every stage."""
        for stage in range(len(self.depths)):
            grid = [side // self.stride(stage) for side in size]
            if any(side % self.stride(stage) for side in size) or min(grid) < 1:
                return False
            if any(side % min(self.window, *grid) for side in grid):
                return False
        return True

    def _near(self) -> list[int]:
        """Return the sides of the nearest squares, below and above the image, that the windows tile."""
        step = self.stride(len(self.depths) - 1)
        middle = max(self.size) // step
        below = (step * i for i in range(middle, 0, -1))
        above = (step * i for i in range(middle + 1, middle + self.window + 1))  # full windows are among them
        nearest = (next((side for side in sides if self.tiles((side, side))), 0) for sides in (below, above))
        return [side for side in nearest if side]

    def stride(self, stage: int) -> int:
        """Return the pixels that a token of a stage spans."""
        return self.patch << stage

    def grid(self, stage: int) -> tuple[int, int]:
        """Return the (rows, columns) of a stage for the image size."""
        return self.size[0] // self.stride(stage), self.size[1] // self.stride(stage)

    def window_of(self, stage: int) -> int:
        """Return the side of a stage's windows."""
        return min(self.window, *self.grid(stage))

    @property
    def unit(self) -> int:
        """Both sides of an image must be a multiple of this number of pixels, so that all windows are full."""
        return lcm(*(self.stride(stage) * self.window_of(stage) for stage in range(len(self.depths))))


class Swin(Encoder):
    """The Swin Transformer: images (b, channels, height, width) -> Features with one level per stage."""

    Config = SwinConfig

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        c = self.config = config
        widths = [c.width << stage for stage in range(len(c.depths))]
        self.spec = FeatureSpec(
            widths[-1],
            strides=tuple(c.stride(stage) for stage in range(len(c.depths))),
            attention="softmax",
            blocks=sum(c.depths),
            pool="mean",
            sizes="any",
            widths=tuple(widths),
            channels=c.channels,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.embed_norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.position = (
            LearnedPosition(c.width, c.grid(0), resize="bicubic") if c.position == "absolute" else None
        )
        rates = iter(stochastic_depth_rates(c.drop_path, sum(c.depths)))
        self.pyramid = Pyramid(
            [Column(_block(c, s, i, next(rates)) for i in range(depth)) for s, depth in enumerate(c.depths)],
            [PatchMerging(width, eps=c.norm_eps) for width in widths[:-1]],
        )
        self.norm = nn.LayerNorm(widths[-1], eps=c.norm_eps)
        truncated(self, 0.02)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, row·col, d) of the last stage."""
        self.refuse(given)
        check_size(images, self.config.unit)
        tokens = self.embed(images)
        tokens = tokens.with_x(self.embed_norm(tokens.x))
        if self.position is not None:
            tokens = self.position(tokens)
        *finer, last = self.pyramid(tokens, record)
        last = last.with_x(self.norm(last.x))
        return Features(last, tuple(level.map() for level in (*finer, last)))


def _block(c: SwinConfig, stage: int, turn: int, rate: float) -> PreNorm:
    width = c.width << stage
    shifted = turn % 2 == 1  # W-MSA and SW-MSA alternate
    attention = WindowAttention(width, c.heads[stage], c.window_of(stage), shifted=shifted)
    mlp = Mlp(width, int(width * c.hidden))
    return PreNorm(width, attention, mlp, drop_path=rate, eps=c.norm_eps)


PRESETS: Mapping[str, SwinConfig] = MappingProxyType(
    {
        "swin_t": SwinConfig(),
        "swin_t_c24": SwinConfig(256, heads=(4, 8, 16, 32), window=8),
        "swin_s": SwinConfig(depths=(2, 2, 18, 2)),
        "swin_b": SwinConfig(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
        "swin_b_384": SwinConfig(384, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12),
        "swin_l": SwinConfig(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
        "swin_l_384": SwinConfig(384, width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12),
    }
)
