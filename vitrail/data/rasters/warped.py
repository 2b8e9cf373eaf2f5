"""A raster as it would be on another grid, resampled while it is read (GDAL's warped VRT)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from vitrail.data.rasters.grid import Grid


def warped(
    dataset: Any,
    grid: Grid,
    resampling: Literal["bilinear", "nearest"],
    nodata: tuple[float | None, float],
    dtype: str | None = None,
) -> Any:
    """Return the view of an opened data set on a grid; `nodata` are the missing data of the file and of the view."""
    of_file, of_view = nodata
    return import_module("rasterio.vrt").WarpedVRT(
        dataset, crs=grid.crs, transform=import_module("affine").Affine(*grid.transform), width=grid.width,
        height=grid.height, resampling=import_module("rasterio.enums").Resampling[resampling], src_nodata=of_file,
        nodata=of_view, dtype=dtype,
    )  # fmt: skip


Corners = tuple[tuple[float, float], tuple[float, float]]
"""Two opposite corners, each (x, y)."""


def corners_beside(dataset: Any, grid: Grid) -> Corners | None:
    """Return the corners of an opened data set in the coordinates of a grid if they share no place, else None."""
    left, bottom, right, top = import_module("rasterio.warp").transform_bounds(
        dataset.crs, grid.crs, *dataset.bounds
    )
    a, b, c, d, e, f = grid.transform
    xs = sorted((c, c + a * grid.width + b * grid.height))
    ys = sorted((f, f + d * grid.width + e * grid.height))
    apart = right <= xs[0] or left >= xs[1] or top <= ys[0] or bottom >= ys[1]
    return ((left, bottom), (right, top)) if apart else None
