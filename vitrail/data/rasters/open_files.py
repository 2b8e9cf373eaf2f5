"""Open raster files with rasterio; broken ones and a missing library become errors that name the way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.rasters.grid import IDENTITY, Grid

_BLOCKS = 64  # MB of decoded blocks that GDAL keeps for all files


def rasterio() -> Any:
    """Return the module rasterio; MissingExtraError if it is not installed."""
    try:
        return import_module("rasterio")
    except ImportError as error:
        raise MissingExtraError("Rasters need rasterio to be read: pip install 'vitrail[raster]'.") from error


def dataset_of(path: Path) -> Any:
    """Return an opened raster file, a data set of rasterio.

    Raises:
        DataError: it is broken, or no raster.
    """
    module = rasterio()
    return _dataset(partial(module.open, path), path.name, module)


def dataset_of_bytes(data: bytes, name: str) -> Any:
    """Return a raster file in memory as an opened data set of rasterio.

    Raises:
        DataError: it is broken, or no raster.
    """
    module = rasterio()
    return _dataset(import_module("rasterio.io").MemoryFile(data).open, name, module)


def _dataset(opening: Callable[[], Any], name: str, module: Any) -> Any:
    try:
        with module.Env(GDAL_CACHEMAX=_BLOCKS), warnings.catch_warnings():
            warnings.simplefilter("ignore", module.errors.NotGeoreferencedWarning)  # said where it matters
            return opening()
    except module.errors.RasterioError as error:
        raise DataError(f"{name} is no raster that can be read ({error}). Copy it again.") from error


def grid_of(dataset: Any) -> Grid:
    """Return the grid of an opened data set."""
    transform = tuple(dataset.transform)[:6]
    crs = dataset.crs.to_wkt() if dataset.crs and transform != IDENTITY else ""
    return Grid(crs, transform, dataset.height, dataset.width)
