"""What every encoder is, and the column of blocks that most are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitrail.core.errors import SettingError
from vitrail.layers.block import PreNorm
from vitrail.layers.position import LearnedPosition
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Encoder(nn.Module):
    """A network from images to features that says of itself what it gives.

    A page of `vitrail.models` defines one, with its settings: `Config` is the class of `config`, a frozen
    dataclass of plain values, so that `Encoder(config)` builds the same network anywhere.
    """

    Config: ClassVar[type[Any]]
    takes: ClassVar[tuple[str, ...]] = ()  # inputs of a batch that it reads beside the images
    elastic: ClassVar[bool] = False
    """Whether it is made to be trained for several costs at once."""

    config: Any
    spec: FeatureSpec
    __call__: Callable[..., Features]

    @property
    def image_size(self) -> tuple[int, int]:
        """The image size (height, width), in pixels, that it is built for."""
        size: tuple[int, int] = self.config.size
        return size

    @property
    def takes_drop_path(self) -> bool:
        """Whether its blocks can be skipped in training."""
        return hasattr(self.config, "drop_path")

    @property
    def convolutional(self) -> bool:
        """Whether recipes for convolutional networks suit it where it has none of its own."""
        return False

    @property
    def plain_column(self) -> bool:
        """Whether it is square patches, `embed`, `prefix`, `position`, `blocks` and `norm` in a row, and no more."""
        return False

    def position_vectors(self) -> tuple[Tensor, tuple[int, int]] | None:
        """Return the vectors of its largest position table, (row·col, d), and their grid; None without a table.

        Prefix tokens are left out.
        """
        tables = [part for part in self.modules() if isinstance(part, LearnedPosition)]
        if not tables:
            return None
        largest = max(tables, key=lambda one: one.table.shape[1])
        return largest.table[0, largest.prefix :], (largest.grid[0], largest.grid[1])

    @abstractmethod
    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """Encode images (b, channels, height, width).

        `given` is what some networks take besides (a time step, a padding mask); `record` collects the
        attention.
        """

    def summarise(self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING) -> Features:
        """Encode images for a head that reads the prefix tokens alone; other tokens may be missing.

        A column saves what its last block would compute for the patches: the same prefix for less work.
        """
        return self(images, given=given)

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """Encode images for a head that reads levels: the stages of a pyramid, or `blocks` of a column, from 1 on.

        Raises:
            SettingError: it has no such blocks, or gives no levels at all.
        """
        if blocks or len(self.spec.widths) < 2:
            raise SettingError(
                f"{type(self).__name__} gives {len(self.spec.widths)} levels and no single blocks. Take a ViT or "
                "DINOv2, whose blocks can be read, or a pyramid such as Swin."
            )
        return self(images, given=given, record=record)

    def folded(self) -> Encoder:
        """Return the same function without branches that only training needs; itself where it has none."""
        return self

    def refuse(self, given: Mapping[str, Tensor]) -> None:
        """Refuse inputs that this network has no use for (SettingError)."""
        if len(given) > 0:  # not `if given`: TorchDynamo takes an empty mapping proxy for a full one
            raise SettingError(
                f"{type(self).__name__} takes images alone; leave out {', '.join(sorted(given))}."
            )


class Column(nn.ModuleList):
    """Blocks of one width in a row; `checkpointing` trades their activations for a second forward.

    With `keep` below 1 the blocks of `stations` (counted from 0; by default those that begin the second, third
    and last quarter) let only that share of their tokens go on; `vitrail.layers.elastic` sets it.
    """

    checkpointing: bool = False
    keep: float = 1.0

    def __init__(self, blocks: Iterable[nn.Module], stations: tuple[int, ...] | None = None) -> None:
        super().__init__(blocks)
        self.stations = tuple(len(self) * i // 4 for i in (1, 2, 3)) if stations is None else stations

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        for turn, block in enumerate(self):
            if record is not None:
                record.enter(block, tokens)
            tokens = self._run(turn, block, tokens, record)
        return tokens

    def summarise(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, n, d) -> their prefix alone, (b, prefix, d): the last block answers nobody else."""
        count, last = tokens.prefix, len(self) - 1
        for turn, block in enumerate(self):
            tokens = self._run(turn, block, tokens, None, count if turn == last else None)
        return tokens

    def tap(
        self, tokens: Tokens, blocks: tuple[int, ...], record: Recorder | None = None
    ) -> tuple[Tokens, dict[int, Tokens]]:
        """Tokens of (b, n, d) -> the last ones, and those after each of `blocks`, counted from 1."""
        tapped: dict[int, Tokens] = {}
        for turn, block in enumerate(self):
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
        how: tuple[Any, ...] = (tokens, record) if asking is None else (tokens, record, asking)
        # Where only the prefix asks, no patch is answered, and so there is none to leave out.
        if self.keep < 1 and turn in self.stations and asking is None:
            run, how = cast(PreNorm, block).keeping, (tokens, self.keep, record)
        # A recorder must hear every block once, and a checkpoint runs its blocks twice.
        if self.checkpointing and record is None and torch.is_grad_enabled():
            again: Tokens = checkpoint(run, *how, use_reentrant=False)
            return again
        out: Tokens = run(*how)
        return out


class ColumnEncoder(Encoder):
    """An encoder that is one column: what it makes of the images, then `blocks`, then `norm`."""

    blocks: Column
    norm: nn.Module

    @abstractmethod
    def start(self, images: Tensor) -> Tokens:
        """Return the tokens that the first block takes: (b, channels, height, width) -> (b, n, d)."""

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, n, d), prefix first."""
        self.refuse(given)
        tokens = self.blocks(self.start(images), record)
        return Features(tokens.with_x(self.norm(tokens.x)))

    def summarise(self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING) -> Features:
        """(b, channels, height, width) -> Features with the prefix alone, (b, prefix, d); without one, all tokens."""
        self.refuse(given)
        if not self.spec.prefix:
            return self(images)
        tokens = self.blocks.summarise(self.start(images))
        return Features(tokens.with_x(self.norm(tokens.x)))

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """(b, channels, height, width) -> Features whose levels are the maps after `blocks`, each normed."""
        self.refuse(given)
        depth = len(self.blocks)
        if not blocks or not all(1 <= block <= depth for block in blocks):
            raise SettingError(
                f"{type(self).__name__} has the blocks 1 to {depth}, so {blocks or 'none'} cannot be read."
            )
        tokens, tapped = self.blocks.tap(self.start(images), blocks, record)
        levels = tuple(one.with_x(self.norm(one.x)).map() for one in (tapped[block] for block in blocks))
        return Features(tokens.with_x(self.norm(tokens.x)), levels)


class Pyramid(nn.Module):
    """Columns of growing width on shrinking grids; `merges` stand between them, one fewer."""

    def __init__(self, stages: Sequence[Column], merges: Sequence[nn.Module]) -> None:
        super().__init__()
        assert len(merges) == len(stages) - 1, "a merge stands between every two stages"
        self.stages, self.merges = nn.ModuleList(stages), nn.ModuleList(merges)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> list[Tokens]:
        """Tokens of the finest grid -> the tokens that each stage ends with, coarse last."""
        levels: list[Tokens] = []
        for turn, stage in enumerate(self.stages):
            tokens = stage(self.merges[turn - 1](tokens) if turn else tokens, record)
            levels.append(tokens)
        return levels


def set_checkpointing(network: nn.Module, on: bool) -> int:
    """Switch gradient checkpointing in every part of a network that has it, ours and timm's; returns how many have."""
    parts = 0
    for module in network.modules():
        if isinstance(module, Column):
            module.checkpointing = on
            parts += 1
        elif callable(switch := getattr(module, "set_grad_checkpointing", None)):
            try:
                switch(on)
            except AssertionError:  # how networks of timm say that they have none
                continue
            parts += 1
    return parts
