"""Any network for images over the frames of a clip: the baseline that networks for clips are compared with.

Every frame is encoded on its own, by the same weights. The vector of a clip is the mean of those of its frames, which
knows nothing of their order (as in the segments of Wang et al. 2016, arXiv:1608.00859, §3.1), or a learned attention
pooling of them, with a learned vector for the place of each frame:

    v_i = pool(encoder(x_i))          i = 1 … t
    y   = mean_i v_i                  or   y = AttentionPool(v_1 + p_1, …, v_t + p_t)

Axes: b batch, t frames, d width, row col patch grid. Tokens are those of all frames, on the grid (t, row, col): prefix
tokens first, the class tokens of all frames in order, then other prefix tokens in the same way, then the patches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.layers.encoder import NOTHING, Encoder
from vitrail.layers.patch_embedding import check_channels
from vitrail.layers.pooling import AttentionPool, Pool
from vitrail.layers.sdpa import Recorder, TokenIndex
from vitrail.layers.tokens import CLASS, Features, FeatureSpec, Tokens
from vitrail.models.factory import config_from, describe, rebuild

OverTime = Literal["mean", "attention"]


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """The settings of an image network over frames.

    `frames` is the number of frames of a clip, `over_time` how their vectors become one; `inner` describes the image
    network as `vitrail.models.factory.describe` does, in plain values of JSON.
    """

    family: ClassVar[str] = "frames"

    frames: int
    over_time: OverTime
    inner: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raise a SettingError for less than one frame, or an unknown way over time."""
        object.__setattr__(self, "inner", json.loads(json.dumps(dict(self.inner))))  # equal after any storage
        if self.frames < 1:
            raise SettingError(f"A clip has at least one frame, so --frames {self.frames} is not possible.")
        if self.over_time not in get_args(OverTime):
            raise UnknownNameError("way over time", self.over_time, get_args(OverTime))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        size: tuple[int, int] = config_from(self.inner).size
        return size

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        return self.size

    @property
    def channels(self) -> int:
        """Channels of the frames."""
        channels: int = self.inner["config"]["channels"]
        return channels


class FrameEncoder(Encoder):
    """An image network over the frames of a clip: (b, t, channels, height, width) -> Features of all frames.

    With the mean over time, a head reads the tokens as it reads those of an image: the mean of the class tokens or of
    the patches of all frames. With attention over time, `pooled` is the vector of the clip. `levels` is the last map of
    a convolutional network for every frame, (b·t, d, row, col), the tensor that its own pooling reads.
    """

    Config = FrameConfig

    def __init__(self, config: FrameConfig, inner: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.inner = inner or rebuild(config.inner)
        spec = self.inner.spec
        if spec.frames:
            raise SettingError(f"{type(self.inner).__name__} takes clips itself. Leave out --over-time.")
        attends = config.over_time == "attention"
        self.pool = Pool(spec) if attends else None
        self.over_time = AttentionOverTime(config.frames, self.pool.width) if self.pool else None
        self.spec = _spec(spec, config.frames, self.pool)

    @property
    def takes_drop_path(self) -> bool:
        """Whether the blocks of the image network can be skipped in training."""
        return self.inner.takes_drop_path

    @property
    def convolutional(self) -> bool:
        """Whether the image network uses the recipes for convolutional networks."""
        return self.inner.convolutional

    def position_vectors(self) -> tuple[Tensor, tuple[int, int]] | None:
        """Return those of the image network."""
        return self.inner.position_vectors()

    def folded(self) -> Encoder:
        """Return an equal network whose image network is folded, or itself if that has nothing to fold."""
        inner = self.inner.folded()
        return self if inner is self.inner else self._with(inner)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, t, channels, height, width) -> Features with tokens (b, prefix + t·row·col, d)."""
        frames = self._frames(images, given)
        features = self.inner(frames, record=record and FrameRecorder(record, self.config.frames))
        tokens, pooled = over_clips(features.tokens, self.config.frames), features.pooled
        if self.pool is not None and self.over_time is not None:
            # It reads the tokens that are returned, so that gradients with respect to them exist.
            vectors = self.pool(features._replace(tokens=by_frame(tokens, self.config.frames)))
            pooled = self.over_time(self._by_clip(vectors))
        elif pooled is not None:
            pooled = self._by_clip(pooled).mean(1)
        return Features(tokens, features.levels[-1:], pooled)

    def summarise(
        self, images: Tensor, blocks: tuple[int, ...] = (), *, given: Mapping[str, Tensor] = NOTHING
    ) -> Features:
        """(b, t, channels, height, width) -> Features with the prefix only, (b, prefix, d); without one all tokens."""
        if blocks or not self.spec.prefix:
            return super().summarise(images, blocks, given=given)
        features = self.inner.summarise(self._frames(images, given))
        return Features(over_clips(features.tokens, self.config.frames))

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """Raise a SettingError: a clip has no single map."""
        raise SettingError(
            "A network over frames answers for a whole clip and has no map of an image, whose blocks can be read. "
            "Choose a task with one answer for each clip, such as classify, or train on single frames without --frames."
        )

    def _frames(self, images: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Return all frames as images: (b, t, channels, height, width) -> (b·t, channels, height, width)."""
        self.refuse(given)
        t = self.config.frames
        if images.ndim != 5 or images.shape[1] != t:
            raise SettingError(
                f"This network takes clips of {t} frames, (b, {t}, channels, height, width), not {tuple(images.shape)}."
            )
        frames = images.flatten(0, 1)
        check_channels(frames, self.spec.channels)
        return frames

    def _by_clip(self, x: Tensor) -> Tensor:  # (b·t, d) -> (b, t, d)
        return rearrange(x, "(b t) d -> b t d", t=self.config.frames)

    def _with(self, inner: Encoder) -> FrameEncoder:
        """Return a network that shares everything but the image network."""
        other = copy(self)
        other._modules = {**self._modules, "inner": inner}
        return other


class AttentionOverTime(nn.Module):
    """Attention pooling of the vectors of frames, with a learned vector for each place: (b, t, d) -> (b, d)."""

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(frames, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.pool = AttentionPool(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(b, t, d) -> (b, d)."""
        pooled: Tensor = self.pool(Tokens(vectors + self.position))
        return pooled


class FrameRecorder(Recorder):
    """Passes on what frames record to the recorder of clips: a frame is a group of queries that sees itself only."""

    def __init__(self, clips: Recorder, frames: int) -> None:
        super().__init__()
        self.clips, self.frames = clips, frames

    def enter(self, block: Callable[..., object], tokens: Tokens) -> None:
        """Pass on a block and its input, whose tokens keep their order: it is only run again."""
        super().enter(block, tokens)

        def again(clips: Tokens, record: Recorder) -> object:
            inner = FrameRecorder(record, self.frames)
            inner.grid, inner.prefix = tokens.grid, tokens.prefix
            return block(clips._replace(grid=tokens.grid, prefix=tokens.prefix), inner)

        self.clips.enter(again, tokens._replace(grid=self.clips.grid, prefix=self.clips.prefix))

    def set_grid(self, grid: tuple[int, ...], prefix: int) -> None:
        """Set the grid of the next calls, with the frames in front."""
        super().set_grid(grid, prefix)
        self.clips.set_grid((self.frames, *grid), self.frames * prefix)

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Pass on one call."""
        self.clips.add(weights, self._of_clips(place))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Let the recorder of clips compute one call."""
        return self.clips.attend(q, k, v, bias, lambda: self._of_clips(where()))

    def _of_clips(self, place: TokenIndex) -> TokenIndex:
        """Return the same call with the tokens of clips. SettingError for merged tokens."""
        if place.source is not None:
            raise SettingError(
                "The attention of merged tokens is not recorded over frames. Use the model without merge."
            )
        rows, cols = (self._moved(index, count) for index, count in zip(place[:2], place.size, strict=True))
        return TokenIndex(rows, cols, (self.frames * place.size[0], self.frames * place.size[1]))

    def _moved(self, index: Tensor, count: int) -> Tensor:  # (g, n) -> (t·g, n), (b·t, g, n) -> (b, t·g, n)
        t = self.frames
        # Keys that are not the tokens themselves have no prefix.
        prefix = self.prefix if count == self.prefix + prod(self.grid) else 0
        frame = torch.arange(t, device=index.device)
        if index.ndim == 3:
            index, frame = rearrange(index, "(b t) g n -> b t g n", t=t), frame[:, None, None]
        else:
            index, frame = index[None].expand(t, -1, -1), frame[:, None, None]
        in_front, behind = index * t + frame, prefix * t + frame * (count - prefix) + index - prefix
        moved = torch.where(index < prefix, in_front, behind)
        return torch.where(index < 0, index, moved).flatten(-3, -2)


def over_clips(tokens: Tokens, frames: int) -> Tokens:
    """Return the tokens of frames as tokens of clips: (b·t, prefix + n, d) -> (b, t·prefix + t·n, d)."""
    prefix = rearrange(tokens.x[:, : tokens.prefix], "(b t) p d -> b (p t) d", t=frames)
    patches = rearrange(tokens.patches, "(b t) n d -> b (t n) d", t=frames)
    kept = tokens.kept
    if kept is not None:
        first = torch.arange(frames, device=kept.device)[:, None] * prod(tokens.grid)
        kept = (rearrange(kept, "(b t) m -> b t m", t=frames) + first).flatten(1)
    return Tokens(torch.cat([prefix, patches], 1), (frames, *tokens.grid), frames * tokens.prefix, kept)


def by_frame(tokens: Tokens, frames: int) -> Tokens:
    """Return the tokens of clips as those of frames, without their places: the inverse of `over_clips`."""
    prefix = rearrange(tokens.x[:, : tokens.prefix], "b (p t) d -> (b t) p d", t=frames)
    patches = rearrange(tokens.patches, "b (t n) d -> (b t) n d", t=frames)
    return Tokens(torch.cat([prefix, patches], 1), prefix=tokens.prefix // frames)


def over_frames(encoder: Encoder, frames: int, over_time: OverTime = "mean") -> FrameEncoder:
    """Return an image network over the frames of clips, with the same tensors.

    Raises:
        SettingError: the number of frames is not positive, or the network takes clips itself.
    """
    return FrameEncoder(FrameConfig(frames, over_time, describe(encoder)), encoder).train(encoder.training)


def _spec(inner: FeatureSpec, frames: int, pool: Pool | None) -> FeatureSpec:
    """Return the description of the features of clips."""
    # A head for a distillation token would read that of the first frame only.
    names = (CLASS if name == CLASS else "reg" for name in inner.prefix)
    spec = replace(
        inner,
        strides=inner.strides[-1:],
        prefix=tuple(name for name in names for _ in range(frames)),
        widths=(),
        depth=0,
        taps=(),
        frames=frames,
    )
    if pool is None:
        return spec
    return replace(spec, pool="own", pooled_width=pool.width, pooled_patches=not pool.from_prefix)


PRESETS: Mapping[str, FrameConfig] = MappingProxyType({})
