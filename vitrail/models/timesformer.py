"""TimeSformer: Bertasius, Wang and Torresani 2021, "Is Space-Time Attention All You Need for Video Understanding?",
arXiv:2102.05095 (with its equation numbers), and the official code, facebookresearch/TimeSformer.

A clip of `frames` frames is cut into patches as an image is in ViT; every patch gets a learned vector for its place and
one for its frame. With divided attention (§3, figure 2) a block first lets each place attend to itself in all frames,
then each frame to its own patches:

    z_t = z + W_fc TimeAttention(LN(z))           over the t tokens of one place          (eq. 8)
    z_s = z_t + SpaceAttention(LN(z_t))           over the patches of one frame           (eq. 9)
    z   = z_s + MLP(LN(z_s))                                                              (eq. 7)

There is one class token. It takes no part in the attention over time; in space it is a query and a key of every frame,
and its new value is the mean over the frames. `joint` is one attention of all tokens of the clip. `space` has no
attention over time: every frame has a class token, and the clip's vector is their mean, before the last norm.

Axes: b batch, t frames, n tokens (class, then patches in the order t, row, col), d width, g attention groups.
The official code always begins with the weights of an image network, with 0 for W_fc and the time table, so that every
frame is seen as if it were alone (`weights/image_start.py`). A network without them begins as a ViT here does: it would
not find out for long that frames differ. Stochastic depth drops the branches of whole clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.attention import SelfAttention
from vitrail.layers.block import DropPath, Gelu, Mlp, PreNorm, stochastic_depth_rates
from vitrail.layers.encoder import NOTHING, Column, ColumnEncoder
from vitrail.layers.patch_embedding import PatchEmbed, Prefix, Sized, check_tiles, tiled
from vitrail.layers.position import LearnedPosition, Resize, placed
from vitrail.layers.sdpa import Recorder, TokenIndex
from vitrail.layers.tokens import CLASS, Features, FeatureSpec, Tokens
from vitrail.layers.weight_init import xavier


@dataclass(frozen=True, slots=True)
class TimeSformerConfig(Sized):
    """The settings of a TimeSformer; the defaults are the published network of 8 frames.

    `image` is the size of the position table and `frames` that of the time table; for other sizes both are resized, by
    `resize` and by the nearest frame.
    """

    family: ClassVar[str] = "timesformer"

    image: int | tuple[int, int] = 224
    patch: int = 16
    channels: int = 3
    frames: int = 8
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None  # of the MLP; None: 4 · width
    attention: Literal["divided", "joint", "space"] = "divided"
    gelu: Gelu = "exact"
    resize: Resize = "nearest"
    norm_eps: float = 1e-6
    drop_path: float = 0.0  # of the last block; linear from 0 at the first block

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile, and for a clip without frames."""
        check_tiles(self.size, self.patch, self.patch)
        if self.frames < 1:
            raise SettingError(f"A clip has at least one frame, not {self.frames}.")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a frame."""
        return tiled(self.size, self.patch, self.patch)


class TimeSformer(ColumnEncoder):
    """Attention over space and time: clips (b, t, channels, height, width) -> Features of one column."""

    Config = TimeSformerConfig

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        c = self.config = config
        apart = c.attention == "space"
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            prefix=(CLASS,) * (c.frames if apart else 1),
            attention="softmax",
            blocks=2 * c.depth if c.attention == "divided" else c.depth,
            depth=c.depth,
            pool="own" if apart else "cls",
            pooled_width=c.width if apart else 0,
            sizes="any",
            channels=c.channels,
            frames=c.frames,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.prefix = Prefix(c.width)
        self.position = LearnedPosition(c.width, c.grid, prefix=1, resize=c.resize)
        self.time = None if apart else LearnedPosition(c.width, (c.frames,), resize="nearest")
        self.blocks = Column(_block(c, rate) for rate in stochastic_depth_rates(c.drop_path, c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)

    def start(self, images: Tensor) -> Tokens:
        """(b, t, channels, height, width) -> input Tokens of the first block, (b, prefix + t·row·col, d)."""
        check_clips(images, self.config.channels)
        t = images.shape[1]
        tokens = placed(self.embed(images.flatten(0, 1)), self.prefix, self.position)
        grid = (t, *tokens.grid)
        x = rearrange(tokens.x, "(b t) n d -> b t n d", t=t)
        if self.time is None:
            return Tokens(torch.cat([x[:, :, 0], x[:, :, 1:].flatten(1, 2)], 1), grid, t)
        timed = x[:, :, 1:] + self.time.fitted((t,))[:, :, None]
        return Tokens(torch.cat([x[:, 0, :1], timed.flatten(1, 2)], 1), grid, 1)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, t, channels, height, width) -> Features with tokens (b, prefix + t·row·col, d)."""
        tokens = self.blocks(self.begin(images, given), record)
        return self._features(tokens, ())

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """(b, t, channels, height, width) -> Features whose levels are the maps (b, d, t, row, col) after `blocks`."""
        self.check_blocks(blocks)
        tokens, tapped = self.blocks.tap(self.begin(images, given), blocks, record)
        return self._features(tokens, self.levels_of(tapped, blocks))

    def _features(self, tokens: Tokens, levels: tuple[Tensor, ...]) -> Features:
        pooled = self.norm(tokens.x[:, : tokens.prefix].mean(1)) if self.time is None else None
        return Features(tokens.with_x(self.norm(tokens.x)).unmerged(), levels, pooled)


class FrameAttention(SelfAttention):
    """Self-attention of the patches of each frame and the class token: Tokens -> (b, n, d).

    One class token is a query and a key of every frame, and its output is the mean over the frames; with one class
    token per frame, each stays in its own.
    """

    any_tokens = False

    def forward(self, tokens: Tokens, record: Recorder | None = None, asking: int | None = None) -> Tensor:
        """Tokens of (b, n, d) -> (b, n, d); with `asking` only the prefix is a query."""
        t, shared = tokens.grid[0], tokens.prefix == 1
        front = repeat(tokens.x[:, :1], "b 1 d -> b t d", t=t) if shared else tokens.x[:, :t]
        patches = rearrange(tokens.patches, "b (t n) d -> b t n d", t=t)
        x = torch.cat([front[:, :, None], patches], 2).flatten(0, 1)  # (b·t, 1 + row·col, d)
        if asking is None or record is not None:
            x = self.within(x, record, partial(frame_places, tokens))
        else:
            x = super().forward(Tokens(x), None, 1)
        x = rearrange(x, "(b t) n d -> b t n d", t=t)
        front = x[:, :, 0].mean(1, keepdim=True) if shared else x[:, :, 0]
        return front if asking is not None else torch.cat([front, x[:, :, 1:].flatten(1, 2)], 1)


class TimeBranch(nn.Module):
    """Patches ← patches + W_fc attention(LN(patches)) among the t tokens of each place: Tokens -> Tokens (eq. 8).

    The class token is not changed.
    """

    def __init__(self, width: int, heads: int, *, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(width, heads)
        self.project = nn.Linear(width, width)  # W_fc
        xavier(self.project)
        self.drop = DropPath(drop_path)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        t = tokens.grid[0]
        where = partial(time_places, tokens)
        x = self.project(self.attention.across(self.norm(tokens.patches), t, record, where))
        return tokens.with_x(torch.cat([tokens.x[:, : tokens.prefix], tokens.patches + self.drop(x)], 1))


class DividedBlock(PreNorm):
    """Attention over time, then over space, then an MLP: Tokens -> Tokens (eqs. 7 to 9)."""

    def __init__(self, time: TimeBranch, attention: FrameAttention, mlp: nn.Module, drop_path: float) -> None:
        norm = time.norm
        super().__init__(norm.normalized_shape[0], attention, mlp, drop_path=drop_path, eps=norm.eps)
        self.time = time

    def forward(self, tokens: Tokens, record: Recorder | None = None, asking: int | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d); with `asking` only the prefix leaves the attention over space."""
        tokens = self.time(tokens, record)
        if record is not None:  # the second half is a block of its own: each has one attention call
            record.enter(super().forward, tokens)
        return super().forward(tokens, record, asking)


def time_places(tokens: Tokens) -> TokenIndex:
    """Return the tokens of each group of an attention over time: (row·col, t)."""
    t, cells = tokens.grid[0], prod(tokens.grid[1:])
    patches = torch.arange(t * cells, device=tokens.x.device).view(t, cells).T.contiguous() + tokens.prefix
    return TokenIndex(patches, patches, (tokens.x.shape[1],) * 2)


def frame_places(tokens: Tokens) -> TokenIndex:
    """Return the tokens of each group of an attention over space: (t, 1 + row·col).

    One class token is a row of every frame, of which each counts 1 / t.
    """
    t, device = tokens.grid[0], tokens.x.device
    patches = torch.arange(prod(tokens.grid), device=device).view(t, -1) + tokens.prefix
    shared = tokens.prefix == 1
    front = torch.zeros(t, dtype=patches.dtype, device=device) if shared else torch.arange(t, device=device)
    at = torch.cat([front[:, None], patches], 1)
    share = torch.ones(at.shape, device=device)
    share[:, 0] = 1 / t if shared else 1.0
    return TokenIndex(at, at, (tokens.x.shape[1],) * 2, share=share)


def check_clips(images: Tensor, channels: int) -> None:
    """Raise a SettingError for a batch that is not (b, t, channels, height, width) with this number of channels."""
    if images.ndim != 5 or images.shape[2] != channels:
        raise SettingError(
            f"The network takes clips as (batch, frames, {channels}, height, width), not {tuple(images.shape)}. Give "
            "it clips, and build it with the number of channels of their frames (channels=…)."
        )


def _block(c: TimeSformerConfig, rate: float) -> PreNorm:
    mlp = Mlp(c.width, c.hidden or 4 * c.width, kind=c.gelu)
    if c.attention == "divided":
        time = TimeBranch(c.width, c.heads, drop_path=rate, eps=c.norm_eps)
        return DividedBlock(time, FrameAttention(c.width, c.heads), mlp, rate)
    kind = SelfAttention if c.attention == "joint" else FrameAttention
    return PreNorm(c.width, kind(c.width, c.heads), mlp, drop_path=rate, eps=c.norm_eps)


PRESETS: Mapping[str, TimeSformerConfig] = MappingProxyType(
    {
        "timesformer_digits": TimeSformerConfig(image=32, patch=8, width=64, depth=4, heads=4),
        "timesformer_s": TimeSformerConfig(width=384, heads=6),  # not of the paper: the size of ViT-S/16
        "timesformer_b": TimeSformerConfig(),  # B, HR and L: table 5 and the official code
        "timesformer_hr": TimeSformerConfig(image=448, frames=16),
        "timesformer_l": TimeSformerConfig(frames=96),
    }
)
