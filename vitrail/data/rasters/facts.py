"""What a layout of rasters knows of its files: bands, grid, and the windows that are read from them."""

from __future__ import annotations

from typing import NamedTuple

from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.grid import Grid


class RasterFacts(NamedTuple):
    """The bands of a stack, its grid, the side of its windows in pixels, and that of a pixel in metres (0: unknown).

    `covered` is how many pixels of the grid have each class.
    """

    path: str
    bands: tuple[Band, ...]
    grid: Grid
    window: int
    pixel: float
    covered: tuple[tuple[str, int], ...] = ()
