"""The base class of all encoders, and the column of blocks that most of them use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitrail.core.errors import SettingError
from vitrail.layers.block import PreNorm
from vitrail.layers.heads import Head
from vitrail.layers.patch_embedding import windows_of
from vitrail.layers.position import LearnedPosition
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens

NOTHING: Mapping[str, Tensor] = MappingProxyType({})

KEPT = "kept"
"""The input with the patches that a plain column is to see: their indices in raster order, int64 (b, m)."""


class Encoder(nn.Module):
    """A network from images to features, with a description of these features (`spec`).

    Each module of `vitrail.models` defines one with its settings. `Config` is the class of `config`, a frozen dataclass
    of plain values, so that `Encoder(config)` builds the same network everywhere.
    """

    Config: ClassVar[type[Any]]
    takes: ClassVar[tuple[str, ...]] = ()  # inputs of a batch that it reads in addition to the images
    elastic: ClassVar[bool] = False
    """Whether it is designed for training at several costs at once."""

    config: Any
    spec: FeatureSpec
    __call__: Callable[..., Features]

    @property
    def image_size(self) -> tuple[int, int]:
        """The image size (height, width), in pixels, for which it is built."""
        size: tuple[int, int] = self.config.size
        return size

    @property
    def takes_drop_path(self) -> bool:
        """Whether its blocks can be skipped in training."""
        return hasattr(self.config, "drop_path")

    @property
    def convolutional(self) -> bool:
        """Whether it uses the recipes for convolutional networks if it has no own recipe."""
        return False

    @property
    def plain_column(self) -> bool:
        """Whether it is only square patches, `embed`, `prefix`, `position`, `blocks` and `norm`, one after another."""
        return False

    def position_vectors(self) -> tuple[Tensor, tuple[int, int]] | None:
        """Return the patch vectors of its largest position table, (row·col, d), and their grid; or None."""
        parts = (part for part in self.modules() if isinstance(part, LearnedPosition))
        tables = [part for part in parts if len(part.grid) == 2]  # not those of frames
        largest = max(tables, key=lambda position: position.table.shape[1], default=None)
        if largest is None:
            return None
        return largest.table[0, largest.prefix :], (largest.grid[0], largest.grid[1])

    @abstractmethod
    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """Encode images (b, channels, height, width).

        `given` holds additional inputs of some networks (a time step, a padding mask); `record` collects the attention.
        """

    def summarise(
        self, images: Tensor, blocks: tuple[int, ...] = (), *, given: Mapping[str, Tensor] = NOTHING
    ) -> Features:
        """Encode images for a head that reads the prefix tokens only; other tokens may be missing.

        A column skips the patches in its last block: the same prefix with less computation. The maps after `blocks`
        are the levels, as in `tap`.
        """
        return self.tap(images, blocks, given=given) if blocks else self(images, given=given)

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """Encode images for a head that reads levels: the stages of a pyramid, or `blocks` of a column, counted from 1.

        Raises:
            SettingError: the network has no such blocks, or no levels.
        """
        if blocks or len(self.spec.widths) < 2:
            raise SettingError(
                f"{type(self).__name__} gives {len(self.spec.widths)} levels and no single blocks. Use a ViT or "
                "DINOv2, whose blocks can be read, or a pyramid such as Swin."
            )
        return self(images, given=given, record=record)

    @property
    def middle(self) -> int:
        """The block halfway through a column, counted from 1, whose map `tap` and `summarise` return; 0 without one."""
        return 0

    def own_head(self, task: str, classes: int) -> Head | None:
        """Return the head that its paper has for a task, by the task's name, or None: the task then makes one.

        Only networks whose published head is part of their design have one, such as the decoder of DETR.
        """
        return None

    @staticmethod
    def why_not_trained(task: str) -> str:
        """Return why its head for a task, by the task's name, only answers and is not trained here, or ""."""
        return ""

    def folded(self) -> Encoder:
        """Return an equal network without branches that only training needs, or itself if it has none."""
        return self

    def sliding(self, images: Tensor, size: tuple[int, int]) -> Features:
        """Encode the windows of `size` (rows, cols) at each position, in raster order, without levels."""
        return self(windows_of(images, size))._replace(levels=())

    def refuse(self, given: Mapping[str, Tensor]) -> None:
        """Raise a SettingError for inputs that this network does not use."""
        if len(given) > 0:  # not `if given`: for TorchDynamo an empty mapping proxy is true
            raise SettingError(
                f"{type(self).__name__} takes images only. Leave out {', '.join(sorted(given))}."
            )


class Column(nn.ModuleList):
    """Blocks of one width, one after another; `checkpointing` saves their activations by a second forward pass.

    With `keep` below 1, the blocks in `stations` (counted from 0; by default the first ones of the second, third and
    last quarter) keep only this share of their tokens. With `merge` above 0, every block but the last merges so many
    pairs of patches. `vitrail.layers.elastic` sets both.
    """

    checkpointing: bool = False
    keep: float = 1.0
    merge: int = 0

    def __init__(self, blocks: Iterable[nn.Module], stations: tuple[int, ...] | None = None) -> None:
        super().__init__(blocks)
        self.stations = tuple(len(self) * i // 4 for i in (1, 2, 3)) if stations is None else stations

    def joined(self, turn: int, tokens: Tokens) -> Tokens:
        """Return the input tokens of a block, counted from 0, with those that join before it, if any."""
        return tokens

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        return self.tap(tokens, (), record)[0]

    def summarise(self, tokens: Tokens, blocks: tuple[int, ...] = ()) -> tuple[Tokens, dict[int, Tokens]]:
        """Tokens of (b, n, d) -> the prefix only, (b, prefix, d), and the tokens after each of `blocks`.

        The last block computes no other token.
        """
        tapped: dict[int, Tokens] = {}
        last = len(self) - 1
        for turn, block in enumerate(self):
            tokens = self.joined(turn, tokens)
            tokens = self._run(turn, block, tokens, None, tokens.prefix if turn == last else None)
            if turn + 1 in blocks:
                tapped[turn + 1] = tokens
        return tokens, tapped

    def tap(
        self, tokens: Tokens, blocks: tuple[int, ...], record: Recorder | None = None
    ) -> tuple[Tokens, dict[int, Tokens]]:
        """Tokens of (b, n, d) -> the output tokens, and the tokens after each of `blocks`, counted from 1."""
        tapped: dict[int, Tokens] = {}
        for turn, block in enumerate(self):
            tokens = self.joined(turn, tokens)
            if record is not None:
                record.enter(block, tokens)
            tokens = self._run(turn, block, tokens, record)
            if turn + 1 in blocks:
                tapped[turn + 1] = tokens
        return tokens, tapped

    def _run(
        self, turn: int, block: nn.Module, tokens: Tokens, record: Recorder | None, asking: int | None = None
    ) -> Tokens:
        run: Callable[..., Tokens] = block
        arguments: tuple[Any, ...] = (tokens, record) if asking is None else (tokens, record, asking)
        # With prefix queries only, no patch is computed, so there is none to drop.
        if self.keep < 1 and turn in self.stations and asking is None:
            run, arguments = cast(PreNorm, block).keeping, (tokens, self.keep, record)
        elif self.merge and turn < len(self) - 1:
            run, arguments = cast(PreNorm, block).merging, (tokens, self.merge, record)
        # A recorder must see every block once, but checkpointing runs its blocks twice.
        if self.checkpointing and record is None and torch.is_grad_enabled():
            checkpointed: Tokens = checkpoint(run, *arguments, use_reentrant=False)
            return checkpointed
        out: Tokens = run(*arguments)
        return out


class ColumnEncoder(Encoder):
    """An encoder with one column: `start` makes tokens from images, then `blocks`, then `norm`.

    A plain column can be given the patches to see (`KEPT`): the others are dropped before the first block.
    """

    takes: ClassVar[tuple[str, ...]] = (KEPT,)
    blocks: Column
    norm: nn.Module

    @property
    def middle(self) -> int:
        """Half of the blocks."""
        return len(self.blocks) // 2

    @abstractmethod
    def start(self, images: Tensor) -> Tokens:
        """Return the input tokens of the first block: (b, channels, height, width) -> (b, n, d)."""

    def begin(self, images: Tensor, given: Mapping[str, Tensor] = NOTHING) -> Tokens:
        """Return the input tokens of the first block, with positions, of the patches that are given or of all.

        Raises:
            SettingError: another input is given, or patches of a network that is no plain column.
        """
        kept = given.get(KEPT)
        if kept is None or not self.plain_column:
            self.refuse(given)
            return self.start(images)
        self.refuse({name: given[name] for name in given if name != KEPT})
        return self.start(images).only(kept)

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, n, d), prefix first."""
        tokens = self.blocks(self.begin(images, given), record)
        return Features(tokens.with_x(self.norm(tokens.x)).unmerged())

    def summarise(
        self, images: Tensor, blocks: tuple[int, ...] = (), *, given: Mapping[str, Tensor] = NOTHING
    ) -> Features:
        """(b, channels, height, width) -> Features with the prefix only, (b, prefix, d); without one all tokens."""
        if not self.spec.prefix:
            return super().summarise(images, blocks, given=given)
        tokens, tapped = self.blocks.summarise(self.begin(images, given), blocks)
        return Features(tokens.with_x(self.norm(tokens.x)), self.levels_of(tapped, blocks))

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """(b, channels, height, width) -> Features whose levels are the normalised maps after `blocks`."""
        self.check_blocks(blocks)
        tokens, tapped = self.blocks.tap(self.begin(images, given), blocks, record)
        return Features(tokens.with_x(self.norm(tokens.x)).unmerged(), self.levels_of(tapped, blocks))

    def check_blocks(self, blocks: tuple[int, ...]) -> None:
        """Raise a SettingError for blocks, counted from 1, that cannot be read, and without any."""
        depth = len(self.blocks)
        if not blocks or not all(1 <= block <= depth for block in blocks):
            raise SettingError(
                f"{type(self).__name__} has the blocks 1 to {depth}, so {blocks or 'none'} cannot be read."
            )

    def levels_of(self, tapped: Mapping[int, Tokens], blocks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the normalised maps after these blocks."""
        levels = (tapped[block] for block in blocks)
        return tuple(level.with_x(self.norm(level.x)).map() for level in levels)
