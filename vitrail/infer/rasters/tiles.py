"""The tiles of a map, and what is predicted for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rasters.grid import Grid, Window

BLOCK = 512
"""Pixels of the side of a block of the written files; tiles are whole blocks."""


class TileAnswer(NamedTuple):
    """The prediction of a tile: probabilities (k, height, width), and where it is none of the classes (or None)."""

    probabilities: NDArray[np.float32]
    none: NDArray[np.bool_] | None = None


class TileNetwork(Protocol):
    """What predicts a tile: `side` of a tile in pixels, the window that is read `around` it, and the prediction."""

    side: int
    words: str

    def around(self, core: Window) -> Window:
        """Return the window that is read for a tile; it may reach outside of the raster."""
        ...

    def predict(
        self, values: NDArray[np.float32], core: Window, wanted: NDArray[np.bool_]
    ) -> TileAnswer:  # (height, width, bands) of `around`
        """Return the prediction of a tile; pixels that are not `wanted` may be left zero."""
        ...


def tiles_of(grid: Grid, side: int) -> Iterator[Window]:
    """Yield tiles of this side, (left, top, right, bottom), row by row; those at the border are smaller."""
    for top in range(0, grid.height, side):
        for left in range(0, grid.width, side):
            yield (left, top, min(left + side, grid.width), min(top + side, grid.height))


def number_of_tiles(grid: Grid, side: int) -> int:
    """Return how many tiles cover a grid."""
    return -(-grid.height // side) * -(-grid.width // side)


def inner(core: Window, around: Window) -> tuple[slice, slice]:
    """Return the rows and columns of a tile in what was read around it."""
    left, top, right, bottom = core
    return slice(top - around[1], bottom - around[1]), slice(left - around[0], right - around[0])
