"""RF-DETR: Robinson et al. 2025, "RF-DETR: Neural Architecture Search for Real-Time Detection Transformers",
arXiv:2511.09554.

The encoder is a DINOv2 (see `dinov2.py`) whose attention is cheaper: the grid of patches is cut into `windows` ×
`windows` equal parts, each with its own copy of the class token, and most blocks attend within a part only. Counted
from 0, the blocks with the numbers in `taps` attend to everything, and so do those behind the last tap. The head reads
the maps after as many blocks as `taps` says, through the norm of the last block; it is that of the tasks `detect` and
`instances` with the sizes of the paper. The original cuts every image as if it had as many rows as columns; here rows
and columns are cut apart.

Axes: b batch, n tokens (the class tokens of the windows in raster order, then the patches of the image in raster
order), d width, h heads, g windows, m tokens of a window, row col patch grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import Column, ColumnEncoder, Encoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_channels, check_size
from vitrail.layers.position import LearnedPosition
from vitrail.layers.sdpa import Recorder, TokenIndex, attend
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import xavier


@dataclass(frozen=True, slots=True)
class RfDetrConfig(Sized):
    """The settings of an RF-DETR encoder; the defaults are those of RF-DETR-N.

    `windows` is the number of windows on each side, 1 for none. `taps` are the blocks whose maps the head reads,
    counted from 1. `table` is the side of the position table in patches, if it is not that of the image.
    """

    family: ClassVar[str] = "rf_detr"

    image: int | tuple[int, int] = 384
    patch: int = 16
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    windows: int = 2
    taps: tuple[int, ...] = (3, 6, 9, 12)
    table: int | None = None
    layer_scale: float = 1.0
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the windows do not tile, and for taps that are no blocks."""
        unit = self.patch * self.windows
        if any(side < unit or side % unit for side in self.size):
            near = " x ".join(str(max(1, round(side / unit)) * unit) for side in self.size)
            raise SettingError(
                f"{self.size[0]} x {self.size[1]} pixels do not divide into {self.windows} x {self.windows} windows of "
                f"patches of {self.patch} pixels; both sides must be a multiple of {unit}. The nearest size: {near}."
            )
        if not self.taps or not all(1 <= tap <= self.depth for tap in self.taps):
            raise SettingError(
                f"The blocks are 1 to {self.depth}, so {self.taps} cannot be tapped. Choose other taps."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the position table."""
        if self.table is not None:
            return self.table, self.table
        return self.size[0] // self.patch, self.size[1] // self.patch

    def attends_everywhere(self, block: int) -> bool:
        """Tell whether a block, counted from 0, attends to all tokens of an image."""
        return self.windows == 1 or block in self.taps or block > self.taps[-1]


class RfDetr(ColumnEncoder):
    """The encoder of RF-DETR: images (b, channels, height, width) -> Features of one column."""

    Config = RfDetrConfig

    def __init__(self, config: RfDetrConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            prefix=("cls",) * c.windows**2,
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            pool="mean",
            sizes="any",
            taps=c.taps,
            channels=c.channels,
            windows=c.windows,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.prefix = Prefix(c.width)
        self.position = LearnedPosition(c.width, c.grid, prefix=1, resize="bicubic_antialias")
        rates = stochastic_depth_rates(c.drop_path, c.depth)
        self.blocks = Column(_block(c, number, rate) for number, rate in enumerate(rates))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> input Tokens of the first block, (b, windows² + row·col, d)."""
        c = self.config
        check_channels(images, c.channels)
        check_size(images, self.spec.unit)
        patches = self.embed(images)
        table, copies = self.position.fitted(patches.grid), c.windows**2
        first = (self.prefix.tokens + table[:, :1]).expand(images.shape[0], copies, -1)
        return Tokens(torch.cat([first, patches.x + table[:, 1:]], 1), patches.grid, copies)

    def folded(self) -> Encoder:
        """Return an equal network whose position table has the size of its image, or itself if it has."""
        if self.config.table is None:
            return self
        twin = RfDetr(replace(self.config, table=None))
        with torch.no_grad():
            table = self.position.fitted(twin.position.grid)
        twin.load_state_dict({**self.state_dict(), "position.table": table})
        return twin.train(self.training)


class Order(NamedTuple):
    """Where the tokens of windows stand in an image (g, m), and where those of an image stand in its windows (n,)."""

    tokens: Tensor
    back: Tensor


def window_order(grid: tuple[int, ...], windows: int, device: torch.device) -> Order:
    """Return the order of tokens for windows of (1 class token, then patches in raster order), g = windows²."""
    row, col = grid
    g, r, c = windows**2, row // windows, col // windows
    each = torch.arange(g, device=device)[:, None]
    patches = g + torch.arange(row * col, device=device).view(windows, r, windows, c)
    inside = torch.arange(g * (1 + r * c), device=device).view(g, 1 + r * c)
    back = inside[:, 1:].reshape(windows, windows, r, c).transpose(1, 2)
    tokens = torch.cat([each, patches.transpose(1, 2).reshape(g, r * c)], 1)
    return Order(tokens, torch.cat([inside[:, 0], back.reshape(row * col)]))


class WindowedAttention(nn.Module):
    """Self-attention within each window, its class token included: Tokens -> (b, n, d).

    Rows and columns of the grid must be multiples of `windows`.
    """

    def __init__(self, width: int, heads: int, windows: int) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(f"{heads} heads do not divide a width of {width}. Choose a divisor of it.")
        self.heads, self.windows = heads, windows
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        xavier(self.qkv, parts=3)
        xavier(self.out)

    def forward(self, tokens: Tokens, record: Recorder | None = None, asking: int | None = None) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d); with `asking` only the first `asking` tokens are returned."""
        b, n, d = tokens.x.shape
        order = window_order(tokens.grid, self.windows, tokens.x.device)
        g, m = order.tokens.shape
        x = tokens.x.index_select(1, order.tokens.flatten()).view(b * g, m, d)
        q, k, v = rearrange(self.qkv(x), "bg m (three h e) -> three bg h m e", three=3, h=self.heads)
        mixed = attend(q, k, v, record=record, where=lambda: TokenIndex(order.tokens, order.tokens, (n, n)))
        out: Tensor = self.out(rearrange(mixed, "(b g) h m e -> b (g m) (h e)", b=b))
        return out.index_select(1, order.back if asking is None else order.back[:asking])


def _block(c: RfDetrConfig, number: int, rate: float) -> PreNorm:
    everywhere = c.attends_everywhere(number)
    return PreNorm(
        c.width,
        SelfAttention(c.width, c.heads) if everywhere else WindowedAttention(c.width, c.heads, c.windows),
        Mlp(c.width, c.hidden or 4 * c.width),
        drop_path=rate,
        layer_scale=c.layer_scale,
        eps=c.norm_eps,
    )


_SEG = RfDetrConfig(patch=12)

PRESETS: Mapping[str, RfDetrConfig] = MappingProxyType(
    {
        "rf_detr_n": RfDetrConfig(),
        "rf_detr_s": RfDetrConfig(512),
        "rf_detr_m": RfDetrConfig(576),
        "rf_detr_l": RfDetrConfig(704),
        "rf_detr_b": RfDetrConfig(560, 14, windows=4, taps=(2, 5, 8, 11), table=37),
        "rf_detr_seg_n": replace(_SEG, image=312, windows=1),
        "rf_detr_seg_s": _SEG,
        "rf_detr_seg_m": replace(_SEG, image=432),
        "rf_detr_seg_l": replace(_SEG, image=504),
        "rf_detr_seg_xl": replace(_SEG, image=624),
        "rf_detr_seg_2xl": replace(_SEG, image=768),
    }
)
