"""Map values from the network's grid back to the pixels of the original image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vitrail.data.batch import Geometry

Map = NDArray[np.float32]

RUN = 65_536
"""Pixels of one side that are processed at once: a panorama may be millions of pixels long."""


def onto_original(grid: Map, geometry: Geometry, rim: float = 0.0) -> Map:
    """Resize (row, col) values to the original (height, width), NaN outside the network's input.

    The grid is interpolated linearly at the centre of every original pixel, so resize, crop and padding are undone in
    one step. `rim` is the number of input pixels outside the outermost cells on each side
    (`FeatureSpec.overlap_margin`); pixels there get the value of the nearest cell.
    """
    top, left, bottom, right = geometry.box
    height, width = geometry.original
    heat = np.empty((height, width), np.float32)
    for rows in _runs(height):
        down = _weights(rows, (top, bottom), grid.shape[0], rim / geometry.size[0]) @ grid
        for cols in _runs(width):
            across = _weights(cols, (left, right), grid.shape[1], rim / geometry.size[1])
            heat[rows.start : rows.stop, cols.start : cols.stop] = down @ across.T
    return heat


def _runs(pixels: int) -> Iterator[range]:
    """Split a side into ranges that are processed at once."""
    for start in range(0, pixels, RUN):
        yield range(start, min(start + RUN, pixels))


def _weights(pixels: range, extent: tuple[float, float], cells: int, rim: float) -> Map:
    """Return linear interpolation weights (pixels, cells); NaN rows for pixels outside the network's input."""
    start, stop = extent
    centre = np.arange(pixels.start, pixels.stop) + 0.5
    share = ((centre - start) / (stop - start) - rim) / (1 - 2 * rim)
    at = np.clip(share * cells - 0.5, 0, cells - 1)
    low = np.minimum(np.floor(at).astype(int), max(cells - 2, 0))
    part = at - low
    weights = np.zeros((len(pixels), cells), dtype=np.float32)
    rows = np.arange(len(pixels))
    weights[rows, low] += 1 - part
    weights[rows, np.minimum(low + 1, cells - 1)] += part
    weights[(centre < start) | (centre > stop)] = np.nan
    return weights
