"""Brings a map from the network's grid back onto the pixels of the original picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitrail.data.sample import Geometry

Map = NDArray[np.float32]


def onto_original(grid: Map, geometry: Geometry, rim: float = 0.0) -> Map:
    """Spread (row, col) values over the original (height, width), NaN where the network saw nothing.

    Every original pixel asks the grid at its own centre, linearly between cell centres, so resize, crop and
    padding are undone in one step. `rim` counts the network's pixels outside the outermost cells on each side
    (`FeatureSpec.rim`); what was seen there gets the value of the nearest cell.
    """
    top, left, bottom, right = geometry.box
    height, width = geometry.original
    down = _weights(height, (top, bottom), grid.shape[0], rim / geometry.size[0])
    across = _weights(width, (left, right), grid.shape[1], rim / geometry.size[1])
    return (down @ grid @ across.T).astype(np.float32)


def _weights(pixels: int, seen: tuple[float, float], cells: int, rim: float) -> Map:
    """Return the linear weights (pixels, cells); rows of NaN for pixels outside what was seen."""
    start, stop = seen
    centre = np.arange(pixels) + 0.5
    share = ((centre - start) / (stop - start) - rim) / (1 - 2 * rim)
    at = np.clip(share * cells - 0.5, 0, cells - 1)
    low = np.minimum(np.floor(at).astype(int), max(cells - 2, 0))
    part = at - low
    weights = np.zeros((pixels, cells), dtype=np.float32)
    rows = np.arange(pixels)
    weights[rows, low] += 1 - part
    weights[rows, np.minimum(low + 1, cells - 1)] += part
    weights[(centre < start) | (centre > stop)] = np.nan
    return weights
