"""Labels on the grid of a raster: from a raster of classes, polygons, or points."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.options import LayoutOptions
from vitrail.data.rasters.grid import IDENTITY, Grid
from vitrail.data.rasters.sources import SUFFIXES

Colour = tuple[int, int, int]

MOST = 65_534
"""Largest number of classes: two bytes for them and for pixels without a label."""

IN_MEMORY = 400_000_000
"""Larger maps, in pixels, are kept in a temporary file."""

STRIP = 32_000_000
"""Pixels of a map that are made at once."""


class LabelMap(NamedTuple):
    """Classes on a grid: (height, width), 0 where there is none, i + 1 for class i, with the names in natural order.

    `colours` are those of the classes, () if unknown; `splits` are given splits, (height, width) with 0 none, 1 train,
    2 val and 3 test, or None.
    """

    classes: NDArray[Any]
    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    notes: tuple[str, ...] = ()
    splits: NDArray[np.uint8] | None = None


def read_labels(path: Path, column: str, grid: Grid, options: LayoutOptions) -> LabelMap:
    """Return the labels of a file on a grid; `column` is the column of the classes of polygons and points.

    Labels in another coordinate system are brought to that of the grid, and it is noted.

    Raises:
        DataError: unreadable, beside the raster, without classes, or without a place on the Earth.
        MissingExtraError: a library is not installed.
    """
    if path.suffix.lower() in SUFFIXES or path.suffix.lower() in {".png", ".npy"}:
        from vitrail.data.rasters.label_raster import of_raster

        return of_raster(path, grid)
    if not grid.located and grid.transform == IDENTITY:
        raise DataError(
            f"The raster has no place on the Earth, so {path.name} cannot be laid on it. Georeference the raster, or "
            f"give labels as a raster of {grid.width} x {grid.height} pixels."
        )
    from vitrail.data.rasters.label_layers import read_layer
    from vitrail.data.rasters.label_shapes import of_layer

    return of_layer(read_layer(path, column, options), grid)


def blank(grid: Grid, number: int) -> NDArray[Any]:
    """Return an empty map for a number of classes, in memory or, if it is large, in a temporary file.

    Raises:
        DataError: there are too many classes.
    """
    if number > MOST:
        raise DataError(
            f"The labels have {number:,} classes, so they are no classes. Give a column of classes."
        )
    kind = np.uint8 if number < 255 else np.uint16
    shape = (grid.height, grid.width)
    if grid.height * grid.width <= IN_MEMORY:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile() as file:  # mapped pages stay after the file is closed
        file.truncate(grid.height * grid.width * np.dtype(kind).itemsize)
        return np.memmap(file, kind, "r+", shape=shape)


def covered(labels: LabelMap) -> tuple[tuple[str, int], ...]:
    """Return how many pixels each class has."""
    tally = np.zeros(len(labels.names) + 1, np.int64)
    rows = max(1, STRIP // labels.classes.shape[1])
    for top in range(0, len(labels.classes), rows):
        tally += np.bincount(labels.classes[top : top + rows].ravel(), minlength=len(tally))
    return tuple(zip(labels.names, tally[1:].tolist(), strict=True))


def strips(grid: Grid) -> Iterator[tuple[int, int]]:
    """Yield (top, bottom) of parts of a grid that are made at once."""
    rows = max(1, STRIP // grid.width)
    for top in range(0, grid.height, rows):
        yield top, min(grid.height, top + rows)
