"""A small picture of a map with its legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitrail import plots
from vitrail.data.rasters.open_files import rasterio
from vitrail.infer.rasters.map_files import MapClasses

LONGEST = 1600
"""Pixels of its long side, without the legend."""


def write_preview(made: Path, path: Path, classes: MapClasses) -> None:
    """Draw the map in a file, at most `LONGEST` pixels long, with a legend of its classes; white: no data."""
    with rasterio().open(made) as opened:
        part = min(1.0, LONGEST / max(opened.height, opened.width))
        shape = (max(1, int(opened.height * part)), max(1, int(opened.width * part)))
        numbers = opened.read(1, out_shape=shape)
    table = np.full((len(classes.names) + 1, 3), 255, np.uint8)
    table[1:] = np.asarray(classes.colours, np.uint8).reshape(-1, 3)
    image = plots.shown(plots.of_array(table[numbers]))
    rows = np.where(numbers == 0, len(classes.names), numbers.astype(np.int64) - 1)
    plots.write_image(path, plots.with_legend(image, classes.names, classes.colours, rows))
