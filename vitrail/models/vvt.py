"""VVT: Sun et al. 2022, "Vicinity Vision Transformer", arXiv:2206.10552.

A pyramid whose attention costs as much as there are tokens, not their square: vicinity attention
(`layers/vicinity_attention.py`) replaces the softmax and weighs near tokens of the grid more. Each of the four stages
embeds overlapping patches of the output of the stage before, then

    x ← x + VicinityAttention(LN(x)),  x ← x + MLP(LN(x))

where queries, keys and values are `reduce` times narrower than the tokens (feature reduction attention), a
gate preserves what the reduction loses (feature preserving connection), and the MLP holds a depthwise
convolution. Places are told by the cosines of the attention and by the convolutions: there is no table, and
every size fits, square or not.

Axes: b batch, n tokens in raster order, d width, h heads, row col grid. First values: linear layers N(0, 0.02),
convolutions N(0, 2 / fan-out). Rows of its attention need not sum to 1; a recorder, for which alone they are
built, gets them before the bounds that the linear way puts on its sums.
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
    """The settings of a VVT, one number a stage where there are several; the defaults are VVT-tiny.

    `image` says what size it is meant for; nothing is built for it. `hidden` is in widths, `reduce` divides the
    widths of queries, keys and values, `shrink` the grid of keys and values.
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
        """Refuse settings that disagree on how many stages there are (SettingError)."""
        several = (self.depths, self.heads, self.hidden, self.reduce, self.shrink)
        if any(len(one) != len(self.widths) for one in several):
            raise SettingError(f"{len(self.widths)} stages need as many numbers each; got {several}.")


class VVT(Encoder):
    """The Vicinity Vision Transformer: images (b, channels, height, width) -> Features with one level a stage."""

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
