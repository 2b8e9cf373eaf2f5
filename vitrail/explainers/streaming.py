"""Recorders that never hold all attention at once: memory grows with the tokens, not with their square."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.sdpa import AttentionMap, Recorder, TokenIndex, softmax
from vitrail.layers.tokens import Tokens

AT_ONCE = 1_000_000
"""Weights that are computed at a time."""


def pieces(
    q: Tensor, k: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
) -> Iterator[AttentionMap]:
    """Yield the attention of (b·g, h, q, e) to (b·g, h, k, e) for a few queries of every group at a time."""
    rows, cols, size = where()
    groups, heads, n_q = q.shape[:3]
    step = max(1, AT_ONCE // (groups * heads * k.shape[2]))
    for first in range(0, n_q, step):
        asked = slice(first, first + step)
        part = bias if bias is None or bias.shape[-2] == 1 else bias[..., asked, :]
        yield AttentionMap(softmax(q[:, :, asked], k, k, part), rows[..., asked], cols, size)


class Piecewise(Recorder):
    """Hands over the attention of every call in pieces of a few queries; the network computes on as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    @abstractmethod
    def take(self, piece: AttentionMap) -> None:
        """Take in a piece of the current call."""

    def begin(self, place: TokenIndex) -> None:
        """Hear that a call begins, the number `calls`."""

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Take in a whole call."""
        self.begin(place)
        self.take(AttentionMap(weights, *place, self.grid, self.prefix))
        self.calls += 1

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Answer by the fused kernel, having taken in the weights piece by piece."""
        self.begin(where())
        for piece in pieces(q, k, bias, where):
            self.take(piece._replace(grid=self.grid, prefix=self.prefix))
        self.calls += 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Step(NamedTuple):
    """An attention call that can be computed again: `again` runs it for another recorder."""

    again: Callable[[Recorder], object]
    grid: tuple[int, ...]
    prefix: int


class Inputs(Recorder):
    """Keeps what every block began with, and no weights; outside of our blocks, queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._inside = False

    def enter(self, block: nn.Module, tokens: Tokens) -> None:
        """Keep the tokens with which a block begins."""
        super().enter(block, tokens)
        self._inside = True
        self.steps.append(Step(lambda record: block(tokens, record), tokens.grid, tokens.prefix))

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Keep nothing: the block computes it again."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Answer by the fused kernel."""
        if not self._inside:
            asked, keys = q.clone(), k.clone()  # views would keep the values alive, too
            self.steps.append(
                Step(lambda record: record.attend(asked, keys, keys, bias, where), self.grid, self.prefix)
            )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class _HeardEnough(Exception):
    """The attention asked for was heard; what the block makes of it nobody reads."""


class Puller(Recorder):
    """Pulls a row vector through the one call that it hears, a few queries at a time, and ends the block there.

    `fuse` makes one matrix of the heads, or leaves them for a plain mean: (b·g, h, q, k) -> (b·g, 1 or h, q, k).
    """

    def __init__(self, row: Tensor, fuse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.row, self.fuse = row, fuse
        self.pulled: Tensor | None = None

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Pull through a whole call, and leave out what the block does with it: values, projection, MLP."""
        self._take(AttentionMap(weights, *place))
        raise _HeardEnough

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Pull, and leave out what the block does with the answer: projection and MLP."""
        place = where()
        asking = self._asking(place, q)
        few = TokenIndex(place.rows[..., asking], place.cols, place.size)
        some = bias if bias is None or bias.shape[-2] == 1 else bias[..., asking, :]
        for piece in pieces(q[:, :, asking], k, some, lambda: few):
            self._take(piece)
        raise _HeardEnough

    def _asking(self, place: TokenIndex, q: Tensor) -> Tensor | slice:
        """Return the queries whose row counts, where few do: in the last block often the class token alone."""
        if place.rows.shape[:-1] != (1,) or place.size[0] != q.shape[2]:
            return slice(None)
        counts = self.row.abs().amax(0)[place.rows[0]] > 0
        return slice(None) if bool(counts.all()) else counts.nonzero()[:, 0]

    def _take(self, piece: AttentionMap) -> None:
        part = piece._replace(weights=self.fuse(piece.weights)).left_multiply(self.row)
        self.pulled = part if self.pulled is None else self.pulled + part


def pull_through(step: Step, row: Tensor, fuse: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute one call again and pull a row vector through it: (b, n_q) -> (b, n_k)."""
    puller = Puller(row, fuse)
    with suppress(_HeardEnough):
        step.again(puller)
    assert puller.pulled is not None, "a block attends once"
    return puller.pulled
