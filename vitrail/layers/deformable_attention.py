"""Deformable attention: each query reads a few places of a map near its own box (arXiv:2010.04159)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.layers.sdpa import Recorder, TokenIndex


class DeformableAttention(nn.Module):
    """Eq. 2 of Zhu et al. 2021, arXiv:2010.04159, with one level and boxes as references.

    Every head of a query reads `points` places of the map, each at an offset of the query's box in units of half the
    side of the box, by bilinear interpolation; outside the map there is zero.
    """

    def __init__(self, width: int, heads: int = 16, points: int = 2) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(width, heads * points * 2)
        self.weights = nn.Linear(width, heads * points)
        self.values, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """Start with equal weights, and with every head looking in a direction of its own, its points in a row."""
        nn.init.zeros_(self.offsets.weight)
        turns = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([turns.cos(), turns.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1.0, self.points + 1)[None, :, None]
        with torch.no_grad():
            self.offsets.bias.copy_((direction[:, None] * steps).flatten())
        for layer in (self.values, self.project):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.weights, self.values, self.project):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.weights.weight)

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        memory: Tensor,
        grid: tuple[int, int],
        record: Recorder | None = None,
    ) -> Tensor:
        """Queries (b, q, d), boxes (b, q, 4) as centre and sides in shares, tokens (b, row·col, d) -> (b, q, d).

        A recorder gets the rows of the equal dense attention, (b, h, q, row·col).
        """
        at, weights = self._places(queries, references)
        values = self.values(memory)
        if record is None:
            return self._project(_sampled(values, at, weights, grid))
        dense = dense_rows(at, weights, grid)
        q, n = dense.shape[-2:]
        rows, cols = (torch.arange(many, device=dense.device)[None] for many in (q, n))
        record.set_grid(grid, 0)
        record.add(dense, TokenIndex(rows, cols, (q, n)))
        apart = rearrange(values.float(), "b n (h e) -> b h n e", h=self.heads)
        return self._project(rearrange(dense @ apart, "b h q e -> b q (h e)"))

    def _project(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(x.to(self.project.weight.dtype))
        return out

    def _places(self, queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places that are read, (b, h, q, p, 2) as (x, y) in shares, and their weights (b, h, q, p)."""
        heads, points = self.heads, self.points
        offsets = rearrange(self.offsets(queries), "b q (h p c) -> b h q p c", h=heads, p=points).float()
        weights = rearrange(self.weights(queries), "b q (h p) -> b h q p", h=heads).float().softmax(-1)
        boxes = references.float()[:, None, :, None]
        return boxes[..., :2] + offsets * boxes[..., 2:] * (0.5 / points), weights


def _sampled(values: Tensor, at: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the weighted sum of the values at these places: (b, row·col, d) -> (b, q, d).

    In float32: the places need its precision, and `grid_sample` wants one type for both.
    """
    b, h = at.shape[:2]
    maps = rearrange(values.float(), "b (row col) (h e) -> (b h) e row col", h=h, row=grid[0])
    read = F.grid_sample(maps, 2 * at.flatten(0, 1) - 1, padding_mode="zeros", align_corners=False)
    mixed = (read * weights.flatten(0, 1)[:, None]).sum(-1)
    return rearrange(mixed, "(b h) e q -> b q (h e)", b=b)


def dense_rows(at: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how much every cell of the map counts for a query: (b, h, q, p, 2), (b, h, q, p) -> (b, h, q, row·col).

    A place between cells counts for its four neighbours as bilinear interpolation weights them, so that the product of
    these rows with the values is what deformable attention computes; the part outside the map is lost in both.
    """
    rows, cols = grid
    x, y = at[..., 0] * cols - 0.5, at[..., 1] * rows - 0.5
    left, top = x.floor(), y.floor()
    dense = weights.new_zeros(*weights.shape[:-1], rows * cols)
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        col, row = left + right, top + below
        share = (1 - (x - col).abs()) * (1 - (y - row).abs())
        inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
        cell = (row.clamp(0, rows - 1) * cols + col.clamp(0, cols - 1)).long()
        dense = dense.scatter_add(-1, cell, weights * share * inside)
    return dense
