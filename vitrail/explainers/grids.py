"""Move vectors over tokens from one grid to another, between the stages of a pyramid."""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, ...]


def overlap(coarse: int, fine: int) -> Tensor:
    """Return the share of each coarse cell that each fine cell covers, along one axis: (coarse, fine)."""
    edges = torch.linspace(0, 1, coarse + 1, dtype=torch.float64)
    cuts = torch.linspace(0, 1, fine + 1, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], cuts[None, :-1])
    high = torch.minimum(edges[1:, None], cuts[None, 1:])
    return ((high - low).clamp(min=0) * coarse).float()


def spread(row: Tensor, old: Grid, new: Grid, prefix: int) -> Tensor:
    """Move weights from one grid to another: (b, prefix + prod(old)) -> (b, prefix + prod(new)).

    The weight of a token is distributed over the tokens at the same location, by area; mixing from farther away in a
    merge is ignored.
    """
    if old == new:
        return row
    front, places = row[:, :prefix], row[:, prefix:].view(-1, *old)
    moved = _along_axes(places, [overlap(a, b) for a, b in zip(old, new, strict=True)])
    return torch.cat([front, moved.flatten(1)], 1)


def gathered(column: Tensor, old: Grid, new: Grid, prefix: int) -> Tensor:
    """Give each token of the coarser grid the mean of the tokens that it covers: the transpose of `spread`.

    (b, prefix + prod(old)) of the finer grid -> (b, prefix + prod(new)).
    """
    if old == new:
        return column
    places = pooled(column[:, prefix:].view(-1, *old), new)
    return torch.cat([column[:, :prefix], places.flatten(1)], 1)


def before_joining(row: Tensor, prefix: int, first: int) -> Tensor:
    """Leave out the prefix tokens that join later, those after the `first`: (b, prefix + n) -> (b, first + n)."""
    return row if first == prefix else torch.cat([row[:, :first], row[:, prefix:]], 1)


def after_joining(earlier: Tensor, row: Tensor, prefix: int, first: int) -> Tensor:
    """Return `earlier`, (b, first + n), with the tokens of `row` that join later: (b, prefix + n)."""
    if first == prefix:
        return earlier
    return torch.cat([earlier[:, :first], row[:, first:prefix], earlier[:, first:]], 1)


def pooled(cells: Tensor, new: Grid) -> Tensor:
    """Return the mean of each of `new` cells of a map: (b, row, col) or (b, t, row, col) -> (b, *new)."""
    return _along_axes(cells, [overlap(b, a).T for a, b in zip(cells.shape[1:], new, strict=True)])


def _along_axes(cells: Tensor, matrices: list[Tensor]) -> Tensor:
    """Multiply each axis after the first with its matrix: (b, row, col), (row, R), (col, C) -> (b, R, C)."""
    old = "trc"[-len(matrices) :]
    pairs = ",".join(f"{axis}{axis.upper()}" for axis in old)
    return torch.einsum(f"b{old},{pairs}->b{old.upper()}", cells, *(one.to(cells) for one in matrices))
