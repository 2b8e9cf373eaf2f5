"""Attention of every patch, in every layer and head, small enough for a page."""

from __future__ import annotations

import base64
from math import prod
from typing import Any

import torch
from torch import Tensor

from vitrail.explainers.attention_maps import token_names
from vitrail.explainers.grids import Grid
from vitrail.explainers.streaming import Piecewise
from vitrail.explainers.target import Subject
from vitrail.layers.sdpa import AttentionMap, TokenIndex

BUDGET = 10_000_000
"""Attention weights in one page, one byte each, for 12 heads; finer grids are pooled into cells until they fit."""


def hover_data(subject: Subject, pixels: Tensor) -> dict[str, Any]:
    """Return the attention of one image for the page: pixels (1, channels, height, width) -> plain data.

    One entry per layer: its cells (rows, cols), prefix tokens, heads, and bytes in base64, (heads, prefix + cells,
    cells), each row divided by its largest weight; `tops` are these weights in percent of the row. Weight on prefix
    tokens is left out. Of a clip, cells are those of all `frames`, one after another.
    """
    cells = max(1, int((BUDGET / max(1, subject.spec.blocks) / 12) ** 0.5))
    recorder = _Cells(cells)
    with torch.inference_mode():
        subject.network.encoder(pixels.to(subject.device), record=recorder)
    return {
        "prefix": token_names(subject.spec.prefix),
        "layers": [_packed(*found) for found in recorder.found()],
    }


def _packed(weights: Tensor, grid: Grid) -> dict[str, Any]:
    tops = weights.amax(2, keepdim=True)
    shares = (weights / tops.clamp(min=1e-12) * 255).round().to(torch.uint8).cpu().numpy()
    return {
        **({"frames": grid[0]} if len(grid) == 3 else {}),
        "rows": grid[-2],
        "cols": grid[-1],
        "prefix": weights.shape[1] - weights.shape[2],
        "heads": len(weights),
        "data": base64.b64encode(shares.tobytes()).decode(),
        "tops": [[round(100 * top, 2) for top in head] for head in tops[..., 0].tolist()],
    }


class _Cells(Piecewise):
    """Pools the attention of every call over cells of patches: mean over queries, sum over keys."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.most = cells
        self.sums: list[Tensor] = []
        self.grids: list[Grid] = []
        self._cell = torch.empty(0)
        self._queries: list[Tensor] = []

    def begin(self, place: TokenIndex) -> None:
        *frames, row, col = self.grid
        t = prod(frames)
        fits = (s for s in range(1, row * col + 1) if t * -(-row // s) * -(-col // s) <= self.most)
        step = next(fits, max(row, col))
        tall, wide = -(-row // step), -(-col // step)
        small = (*frames, tall, wide)
        down, across = torch.arange(row) // step, torch.arange(col) // step
        places = (down[:, None] * wide + across).flatten()
        patches = self.prefix + (torch.arange(t)[:, None] * tall * wide + places).flatten()
        last = torch.tensor([self.prefix + prod(small)])  # what padding, -1, reads and writes
        self._cell = torch.cat([torch.arange(self.prefix), patches, last]).to(place.rows.device)
        self.grids.append(small)
        self.sums.append(torch.empty(0))
        rows = place.rows.flatten() if place.source is None else torch.arange(place.size[0])
        self._queries.append(torch.bincount(self._cell[rows], minlength=int(last) + 1))

    def take(self, piece: AttentionMap) -> None:
        piece = piece.unmerged()
        groups, heads, queries, _ = piece.weights.shape
        cells = int(self._cell[-1]) + 1
        key_cells = self._cell[piece.cols.view(groups, -1)][:, None, None].expand(piece.weights.shape)
        keys = piece.weights.new_zeros(groups, heads, queries, cells).scatter_add(3, key_cells, piece.weights)
        flat = keys.transpose(0, 1).reshape(heads, groups * queries, cells)
        found = flat.new_zeros(heads, cells, cells).index_add(1, self._cell[piece.rows.flatten()], flat)
        self.sums[-1] = self.sums[-1] + found if self.sums[-1].numel() else found

    def found(self) -> list[tuple[Tensor, Grid]]:
        """Return (heads, prefix + cells, cells) and the grid of cells, one a call."""
        means = [
            total / count[None, :, None].clamp(min=1)
            for total, count in zip(self.sums, self._queries, strict=True)
        ]
        return [
            (mean[:, :-1, mean.shape[2] - 1 - prod(grid) : -1], grid)
            for mean, grid in zip(means, self.grids, strict=True)
        ]
