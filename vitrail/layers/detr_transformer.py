"""The transformer of DETR (Carion et al. 2020, arXiv:2005.12872, appendix A.3): encoder, decoder, and positions.

Positions are added to queries and keys of every attention, and never to values. Dropout is that of the paper, except
that attention weights are not dropped.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitrail.core.errors import SettingError
from vitrail.layers.encoder import Column
from vitrail.layers.sdpa import Recorder, attend
from vitrail.layers.tokens import Tokens

TABLE = 50
"""Rows, and columns, of learned positions."""

TEMPERATURE = 10000


class Places(NamedTuple):
    """Positions of the cells of a map, (b or 1, n, d), and a bias that hides padding, (b, 1, 1, n), or None."""

    position: Tensor
    bias: Tensor | None


def on_grid(valid: Tensor | None, grid: tuple[int, ...]) -> Tensor | None:
    """Return which cells of a map show the image, not padding: bool (b, height, width) -> bool (b, row, col)."""
    if valid is None:
        return None
    return F.interpolate(valid[:, None].float(), (grid[0], grid[1]), mode="nearest")[:, 0] > 0.5


class SinePosition(nn.Module):
    """Sines of the row, then of the column, both counted within the image and divided by its rows and columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.each = width // 2

    def forward(self, grid: tuple[int, ...], valid: Tensor | None, like: Tensor) -> Tensor:
        """Return the positions of the cells of a grid; `valid` is bool (b, row, col) or None: (b or 1, n, d)."""
        if valid is None:
            row, col = (torch.arange(1, int(side) + 1, device=like.device).float() for side in grid)
            y, x = row[None, :, None].expand(1, *grid), col[None, None].expand(1, *grid)
        else:
            y, x = (valid.cumsum(axis, dtype=torch.float32) for axis in (1, 2))
        y, x = y / (y[:, -1:] + 1e-6) * math.tau, x / (x[:, :, -1:] + 1e-6) * math.tau
        return torch.cat([self._waves(y), self._waves(x)], -1).to(like.dtype)

    def _waves(self, place: Tensor) -> Tensor:  # (b, row, col) -> (b, n, d / 2)
        turn = torch.arange(self.each, device=place.device, dtype=torch.float32)
        period = TEMPERATURE ** (2 * turn.div(2, rounding_mode="floor") / self.each)
        angle = place.flatten(1)[..., None] / period
        return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(2)


class TablePosition(nn.Module):
    """A learned vector of the column, then one of the row, for at most 50 of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows, self.cols = (nn.Parameter(torch.rand(TABLE, width // 2)) for _ in range(2))

    def forward(self, grid: tuple[int, ...], valid: Tensor | None, like: Tensor) -> Tensor:
        """Return the positions of the cells of a grid: (1, n, d). SettingError for a larger grid than the table."""
        row, col = grid
        if max(grid) > TABLE:
            raise SettingError(
                f"This DETR has learned places for {TABLE} x {TABLE} cells, and the image has {row} x {col}. "
                "Use a smaller image."
            )
        y = self.rows[:row, None].expand(-1, col, -1)
        x = self.cols[None, :col].expand(row, -1, -1)
        return torch.cat([x, y], -1).flatten(0, 1)[None].to(like.dtype)


def positions(kind: Literal["sine", "learned"], width: int) -> SinePosition | TablePosition:
    """Return the positions of this kind."""
    return SinePosition(width) if kind == "sine" else TablePosition(width)


def places(
    position: SinePosition | TablePosition, tokens: Tokens, valid: Tensor | None
) -> Places:  # valid (b, height, width) of the images
    """Return positions and bias for the cells of a map."""
    inside = on_grid(valid, tokens.grid)
    bias = None
    if inside is not None:
        nothing = tokens.x.new_zeros(inside.shape[0], 1, 1, inside[0].numel())
        bias = nothing.masked_fill(~inside.flatten(1)[:, None, None], -torch.inf)
    return Places(position(tokens.grid, inside, tokens.x), bias)


class Attention(nn.Module):
    """Attention with queries, keys and values of different vectors: (b, q, d), (b, k, d), (b, k, d) -> (b, q, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        # torch's attention draws the three as one matrix.
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(0.5))
        nn.init.xavier_uniform_(self.project.weight)
        for layer in (self.query, self.key, self.value, self.project):
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        asking: Tensor,
        asked: Tensor,
        told: Tensor,
        bias: Tensor | None = None,
        record: Recorder | None = None,
    ) -> Tensor:
        """(b, q, d), (b, k, d), (b, k, d) -> (b, q, d)."""
        q, k, v = (
            rearrange(layer(x), "b n (h e) -> b h n e", h=self.heads)
            for layer, x in ((self.query, asking), (self.key, asked), (self.value, told))
        )
        mixed = attend(q, k, v, bias=bias, record=record)
        out: Tensor = self.project(rearrange(mixed, "b h n e -> b n (h e)"))
        return out


class LayerShape(NamedTuple):
    """Sizes of a layer of the encoder or the decoder."""

    width: int
    heads: int
    hidden: int
    dropout: float
    pre_norm: bool


class _Layer(nn.Module):
    """What layers have in common: branches with a norm before or after, and the MLP."""

    def __init__(self, shape: LayerShape, norms: int) -> None:
        super().__init__()
        self.pre_norm = shape.pre_norm
        self.self_attention = Attention(shape.width, shape.heads)
        self.rise, self.fall = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)
        nn.init.xavier_uniform_(self.rise.weight)
        nn.init.xavier_uniform_(self.fall.weight)
        for number in range(1, norms + 1):
            self.add_module(f"norm{number}", nn.LayerNorm(shape.width))
        self.drop = nn.Dropout(shape.dropout)

    def before(self, x: Tensor, number: int) -> Tensor:
        """Return the input of a branch."""
        return cast(Tensor, self.get_submodule(f"norm{number}")(x)) if self.pre_norm else x

    def after(self, x: Tensor, branch: Tensor, number: int) -> Tensor:
        """Return the sum of an input and its branch, normed."""
        total = x + self.drop(branch)
        return total if self.pre_norm else cast(Tensor, self.get_submodule(f"norm{number}")(total))

    def fed(self, x: Tensor, number: int) -> Tensor:
        """Return the output of the MLP's branch."""
        hidden = self.drop(F.relu(self.rise(self.before(x, number))))
        return self.after(x, self.fall(hidden), number)


class EncoderLayer(_Layer):
    """Self-attention and an MLP: Tokens -> Tokens."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__(shape, 2)

    def forward(self, tokens: Tokens, record: Recorder | None = None, *, where: Places) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        x = tokens.x
        y = self.before(x, 1)
        placed = y + where.position
        x = self.after(x, self.self_attention(placed, placed, y, where.bias, record), 1)
        return tokens.with_x(self.fed(x, 2))


class EncoderLayers(Column):
    """Layers of the encoder, which all get the positions."""

    def placed(self, tokens: Tokens, where: Places, record: Recorder | None = None) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, n, d)."""
        for layer in self:
            placed = partial(layer, where=where)
            if record is not None:
                record.enter(placed, tokens)
            if self.checkpointing and record is None and torch.is_grad_enabled():
                tokens = checkpoint(placed, tokens, use_reentrant=False)
            else:
                tokens = placed(tokens, record)
        return tokens


class DecoderLayer(_Layer):
    """Attention among queries, to the map, and an MLP: (b, q, d) -> (b, q, d)."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__(shape, 3)
        self.cross = Attention(shape.width, shape.heads)

    def forward(
        self, x: Tensor, queries: Tensor, memory: Tensor, where: Places, record: Recorder | None = None
    ) -> Tensor:
        """Vectors (b, q, d), places of queries (q, d), map (b, n, d) -> (b, q, d)."""
        y = self.before(x, 1)
        x = self.after(x, self.self_attention(y + queries, y + queries, y), 1)
        y = self.before(x, 2)
        found = self.cross(y + queries, memory + where.position, memory, where.bias, record)
        return self.fed(self.after(x, found, 2), 3)


class Decoder(nn.Module):
    """Learned queries that read the map: (b, n, d) -> the vectors of the queries after each layer, (b, q, d)."""

    def __init__(self, shape: LayerShape, layers: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, shape.width))
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(layers))
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, memory: Tensor, where: Places, record: Recorder | None = None) -> list[Tensor]:
        """Return the vectors of all layers through the one norm; a recorder gets the attention to the map."""
        queries = self.queries.to(memory.dtype)
        x = torch.zeros_like(queries).expand(memory.shape[0], -1, -1)
        every = []
        for layer in self.layers:
            x = layer(x, queries, memory, where, record)
            every.append(self.norm(x))
        return every
