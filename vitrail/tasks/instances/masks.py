"""From the masks of a network, coarse maps of logits, to masks in the pixels of the image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.instances import Runs, runs_at
from vitrail.data.view import points_in_original, weights_in_original


class Onto(NamedTuple):
    """How maps of an input lie on its image: weights of rows (height, row) and columns (width, col).

    `seen` are the first and the last row and column, exclusive, that the input shows.
    """

    down: Tensor
    across: Tensor
    seen: tuple[tuple[int, int], tuple[int, int]]
    size: tuple[int, int]

    @classmethod
    def of(cls, geometry: Geometry, rows: int, cols: int) -> Onto:
        """Return it for maps of so many cells; the input is one of prediction, without augmentation."""
        down, across = weights_in_original(geometry, rows, cols)
        height, width = geometry.size
        ends = points_in_original(geometry, np.array([[0.0, 0.0], [width, height]]))
        seen = [
            # A pixel is seen if its centre is.
            (
                int(np.clip(np.ceil(low - 0.5), 0, side)),
                int(np.clip(np.floor(high - 0.5) + 1, 0, side)),
            )
            for low, high, side in zip(ends[0, ::-1], ends[1, ::-1], geometry.original, strict=True)
        ]
        return cls(down.float(), across.float(), (seen[0], seen[1]), geometry.original)

    def mask(self, logits: Tensor) -> Runs:
        """Return where a map of logits (row, col) is positive in the image, interpolated linearly between cells.

        Only the pixels near positive cells are computed: elsewhere no interpolation is positive.
        """
        positive = logits > 0
        spans = [_span(positive.any(axis)) for axis in (1, 0)]
        if None in spans:
            return Runs(self.size, _nothing(self.size))
        (top, bottom), (left, right) = (one for one in spans if one is not None)
        rows = _reached(self.down, top, bottom, self.seen[0])
        cols = _reached(self.across, left, right, self.seen[1])
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return Runs(self.size, _nothing(self.size))
        part = logits[top:bottom, left:right].float()
        fine = self.down[rows, top:bottom] @ part @ self.across[cols, left:right].T
        return runs_at((fine > 0).numpy(), (rows.start, cols.start), self.size)


def _span(present: Tensor) -> tuple[int, int] | None:
    """Return the first and the last cell (exclusive) of a row of flags, with one more on each side; None for none."""
    at = present.nonzero()[:, 0].tolist()
    return (max(0, at[0] - 1), min(len(present), at[-1] + 2)) if at else None


def _reached(weights: Tensor, first: int, last: int, seen: tuple[int, int]) -> slice:
    """Return the pixels that are interpolated between these cells only."""
    inside = weights[:, first:last].sum(1) > 1 - 1e-6
    at = inside.nonzero()[:, 0].tolist()
    if not at:
        return slice(0, 0)
    return slice(max(seen[0], at[0]), min(seen[1], at[-1] + 1))


def _nothing(size: tuple[int, int]) -> bytes:
    empty: NDArray[np.bool_] = np.zeros((1, 1), np.bool_)
    return runs_at(empty, (0, 0), size).counts


def cut_to(mask: Tensor, box: Tensor, margin: float) -> Tensor:
    """Return the logits (row, col) of a mask with those far outside its box (4,), in shares, made negative."""
    rows, cols = mask.shape
    left, top, right, bottom = box.tolist()
    wide, tall = margin * (right - left), margin * (bottom - top)
    y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(cols) + 0.5) / cols
    inside = ((y >= top - tall) & (y <= bottom + tall))[:, None]
    inside = inside & ((x >= left - wide) & (x <= right + wide))[None]
    return mask.masked_fill(~inside, -1.0)
