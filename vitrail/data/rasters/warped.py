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
