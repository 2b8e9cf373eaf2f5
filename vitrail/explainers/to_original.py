"""Brings a map from the network's grid back onto the pixels of the original image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vitrail.data.batch import Geometry

Map = NDArray[np.float32]

RUN = 65_536
"""Pixels of a side whose weights are held at once: a strip may be millions long."""


def onto_original(grid: Map, geometry: Geometry, rim: float = 0.0) -> Map:
    """Spread (row, col) values over the original (height, width), NaN where the network saw nothing.

    Every original pixel asks the grid at its own centre, linearly between cell centres, so resize, crop and
    padding are undone in one step. `rim` counts the network's pixels outside the outermost cells on each side
    (`FeatureSpec.overlap_margin`); what was seen there gets the value of the nearest cell.
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
    """Cut a side into runs whose weights are held at once."""
    for start in range(0, pixels, RUN):
        yield range(start, min(start + RUN, pixels))


def _weights(pixels: range, seen: tuple[float, float], cells: int, rim: float) -> Map:
    """Return the linear weights (pixels, cells); rows of NaN for pixels outside what was seen."""
    start, stop = seen
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
