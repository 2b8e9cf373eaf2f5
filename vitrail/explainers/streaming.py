"""Recorders that process attention in pieces: memory grows with the number of tokens, not with its square."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.sdpa import AttentionMap, Recorder, TokenIndex, softmax
from vitrail.layers.tokens import Tokens

AT_ONCE = 1_000_000
"""Number of attention weights that are computed at a time."""


def pieces(
    q: Tensor, k: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
) -> Iterator[AttentionMap]:
    """Yield the attention of (b·g, h, q, e) to (b·g, h, k, e) for a few queries of every group at a time."""
    place = where()
    groups, heads, n_q = q.shape[:3]
    step = max(1, AT_ONCE // (groups * heads * k.shape[2]))
    for first in range(0, n_q, step):
        asked = slice(first, first + step)
        part = bias if bias is None or bias.shape[-2] == 1 else bias[..., asked, :]
        yield AttentionMap(softmax(q[:, :, asked], k, k, part), *place.only(asked))


class Piecewise(Recorder):
    """Records the attention of every call in pieces of a few queries; the network's computation does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    @abstractmethod
    def take(self, piece: AttentionMap) -> None:
        """Process a piece of the current call."""

    def begin(self, place: TokenIndex) -> None:
        """Prepare for the next call, number `calls`."""

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Process a whole call."""
        self.begin(place)
        self.take(AttentionMap(weights, *place, grid=self.grid, prefix=self.prefix))
        self.calls += 1

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Process the weights piece by piece, then compute the output with the fused kernel."""
        self.begin(where())
        for piece in pieces(q, k, bias, where):
            self.take(piece._replace(grid=self.grid, prefix=self.prefix))
        self.calls += 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Step(NamedTuple):
    """An attention call that can be repeated: `again` runs it with another recorder."""

    again: Callable[[Recorder], object]
    grid: tuple[int, ...]
    prefix: int


class Inputs(Recorder):
    """Keeps the input of every block, and no weights; outside of our blocks, queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._inside = False

    def enter(self, block: Callable[..., object], tokens: Tokens) -> None:
        """Keep the input tokens of a block."""
        super().enter(block, tokens)
        self._inside = True
        self.steps.append(Step(lambda record: block(tokens, record), tokens.grid, tokens.prefix))

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Keep nothing: repeating the block computes it again."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Compute the output with the fused kernel."""
        if not self._inside:
            asked, keys = q.clone(), k.clone()  # views would also keep the values in memory
            self.steps.append(
                Step(lambda record: record.attend(asked, keys, keys, bias, where), self.grid, self.prefix)
            )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class _AttentionRecorded(Exception):
    """Stops a block after its attention was recorded; the rest of the block is not needed."""


class Puller(Recorder):
    """Pulls a row vector through one attention call, a few queries at a time, and stops the block there.

    `fuse` fuses the heads into one matrix, or keeps them for a plain mean: (b·g, h, q, k) -> (b·g, 1 or h, q, k).
    """

    def __init__(self, row: Tensor, fuse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.row, self.fuse = row, fuse
        self.pulled: Tensor | None = None
        self.unasked: Tensor | None = None

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Pull through a whole call, and skip the rest of the block: values, projection, MLP."""
        whole = AttentionMap(weights, *place)
        self.unasked = whole.unasked(self.row)
        self._take(whole)
        raise _AttentionRecorded

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Pull in pieces, and skip the rest of the block: values, projection, MLP."""
        place = where()
        self.unasked = AttentionMap(q, *place).unasked(self.row)
        asking = self._asking(place, q)
        few = place.only(asking)
        some = bias if bias is None or bias.shape[-2] == 1 else bias[..., asking, :]
        for piece in pieces(q[:, :, asking], k, some, lambda: few):
            self._take(piece)
        raise _AttentionRecorded

    def _asking(self, place: TokenIndex, q: Tensor) -> Tensor | slice:
        """Return the queries with non-zero weight, if there are few: in the last block often only the class token."""
        if place.rows.shape[:-1] != (1,) or place.size[0] != q.shape[2]:
            return slice(None)
        counts = self.row.abs().amax(0)[place.rows[0]] > 0
        return slice(None) if bool(counts.all()) else counts.nonzero()[:, 0]

    def _take(self, piece: AttentionMap) -> None:
        part = piece._replace(weights=self.fuse(piece.weights)).left_multiply(self.row)
        self.pulled = part if self.pulled is None else self.pulled + part


def pull_through(step: Step, row: Tensor, fuse: Callable[[Tensor], Tensor]) -> Tensor:
    """Repeat one attention call and pull a row vector through it: (b, n_q) -> (b, n_k).

    Tokens without a query keep their part of the row.
    """
    puller = Puller(row, fuse)
    with suppress(_AttentionRecorded):
        step.again(puller)
    assert puller.pulled is not None, "a block calls attention once"
    return with_unasked(puller.pulled, puller.unasked)


def with_unasked(pulled: Tensor, unasked: Tensor | None) -> Tensor:
    """Return a pulled row with the part of the tokens without a query, if queries and keys are the same tokens."""
    return pulled if unasked is None or unasked.shape != pulled.shape else pulled + unasked
