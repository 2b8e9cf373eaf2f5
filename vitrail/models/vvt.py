"""VVT: Sun et al. 2022, "Vicinity Vision Transformer", arXiv:2206.10552.

A pyramid whose attention cost is linear in the number of tokens: vicinity attention (`layers/vicinity_attention.py`)
replaces the softmax and gives near tokens of the grid higher weights. Each of the four stages embeds overlapping
patches of the output of the previous stage, then

    x ← x + VicinityAttention(LN(x)),  x ← x + MLP(LN(x))

where queries, keys and values are `reduce` times narrower than the tokens (feature reduction attention), a gate keeps
information that the reduction loses (feature preserving connection), and the MLP has a depthwise convolution.
Positions come from the cosines of the attention and from the convolutions: there is no position table, and every
size is accepted, square or not.

Axes: b batch, n tokens in raster order, d width, h heads, row col grid. Initial values: linear layers N(0, 0.02),
convolutions N(0, 2 / fan-out). Rows of its attention need not sum to 1. They are computed for a recorder only, and
without the bounds that the linear computation applies to its sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.block import ConvMlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import NOTHING, Column, Encoder
from vitrail.layers.patch_embedding import OverlapEmbed, Sized
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens
from vitrail.layers.vicinity_attention import Form, VicinityAttention
from vitrail.layers.weight_init import fan_out, truncated


@dataclass(frozen=True, slots=True)
class VVTConfig(Sized):
    """The settings of a VVT; tuples have one number per stage. The defaults are VVT-tiny.

    `image` is the intended size; no parameter depends on it. `hidden` is in multiples of the width, `reduce` divides
    the width of queries, keys and values, `shrink` the grid of keys and values.
    """

    family: ClassVar[str] = "vvt"

    image: int | tuple[int, int] = 224
    channels: int = 3
    widths: tuple[int, ...] = (96, 160, 320, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    hidden: tuple[int, ...] = (8, 8, 4, 4)
    reduce: tuple[int, ...] = (2, 2, 2, 2)
    shrink: tuple[int, ...] = (1, 1, 1, 1)
    form: Form = "sum"
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for settings with different numbers of stages."""
        others = (self.depths, self.heads, self.hidden, self.reduce, self.shrink)
        if any(len(values) != len(self.widths) for values in others):
            raise SettingError(
                f"{len(self.widths)} stages need the same number of values each, not {others}."
            )


class VVT(Encoder):
    """The Vicinity Vision Transformer: images (b, channels, height, width) -> Features with one level per stage."""

    Config = VVTConfig

    def __init__(self, config: VVTConfig) -> None:
        super().__init__()
        c = self.config = config
        stages = range(len(c.widths))
        self.spec = FeatureSpec(
            c.widths[-1],
            strides=tuple(4 << s for s in stages),
            attention="linear",
            blocks=sum(c.depths),
            pool="mean",
            sizes="every",
            tolerance=2e-4,
            widths=c.widths,
            channels=c.channels,
        )
        fans = (c.channels, *c.widths[:-1])
        self.embeds = nn.ModuleList(OverlapEmbed(c.widths[s], 2 if s else 4, fans[s]) for s in stages)
        rates = iter(stochastic_depth_rates(c.drop_path, sum(c.depths)))
        self.stages = nn.ModuleList(
            Column(_block(c, s, next(rates)) for _ in range(c.depths[s])) for s in stages
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=c.norm_eps) for width in c.widths)
        truncated(self, 0.02)
        fan_out(self)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, row·col, d) of the last stage."""
        self.refuse(given)
        grid, levels = images, []
        for embed, stage, norm in zip(self.embeds, self.stages, self.norms, strict=True):
            tokens: Tokens = stage(embed(grid), record)
            tokens = tokens.with_x(norm(tokens.x))
            grid = tokens.map()
            levels.append(grid)
        return Features(tokens, tuple(levels))


def _block(c: VVTConfig, stage: int, rate: float) -> PreNorm:
    width = c.widths[stage]
    attention = VicinityAttention(
        width, c.heads[stage], reduce=c.reduce[stage], shrink=c.shrink[stage], form=c.form
    )
    return PreNorm(width, attention, ConvMlp(width, c.hidden[stage] * width), drop_path=rate, eps=c.norm_eps)


PRESETS: Mapping[str, VVTConfig] = MappingProxyType(
    {
        "vvt_t": VVTConfig(),
        "vvt_s": VVTConfig(depths=(3, 3, 9, 3)),
        "vvt_m": VVTConfig(depths=(3, 3, 27, 3)),
        "vvt_l": VVTConfig(depths=(4, 4, 36, 4), hidden=(4, 4, 4, 4)),
    }
)
