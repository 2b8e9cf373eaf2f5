"""Read windows of one or several raster files as named bands on one grid.

The grid is that of the file with the smallest pixels. Files with another grid are resampled to it while they are read
(bilinear, GDAL's warped VRT), also from another coordinate system. Only a
small raster is read whole, when many of its windows are wanted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.rasters.band_names import name_of_file
from vitrail.data.rasters.bands import Band, places, unique
from vitrail.data.rasters.grid import Grid, Window
from vitrail.data.rasters.open_files import dataset_of, dataset_of_bytes, grid_of, rasterio
from vitrail.data.rasters.sentinel2 import NO_DATA, is_no_ground, product_of
from vitrail.data.rasters.sources import JOIN
from vitrail.data.rasters.warped import corners_beside, warped

_HELD = 1 << 28
"""Bytes up to which a raster is held in memory while small windows of it are read: GDAL takes 0.1 ms for each file."""

_SMALL, _MANY = 64, 256
"""Side of a small window in pixels, and how many of them are read before the raster is held in memory."""

_COLOURS = ("red", "green", "blue", "nir")
"""Meanings of bands that a file states, and that name those without a description."""


class _File(NamedTuple):
    """An opened file on the grid of the stack: `read` is the data set, or its resampled view.

    `empty` is the stored number without data that the file itself does not state, `clouds` the file of clouds on the
    grid, as (path, data set).
    """

    name: str
    read: Any
    bands: tuple[Band, ...]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    empty: float | None = None
    clouds: tuple[Path, Any] | None = None


class Stack:
    """Raster files as one array of named bands: `bands`, `grid`, and `notes` on files that are resampled."""

    def __init__(
        self,
        files: Sequence[_File],
        grid: Grid,
        whole: Callable[[], NDArray[np.float32] | None] | None = None,
    ) -> None:
        self.grid, self._files, self._whole, self._small = grid, tuple(files), whole, 0
        self.bands = unique([(one.name, one.bands) for one in files])
        self.notes = tuple(dict.fromkeys(note for one in files for note in one.notes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bands."""
        return tuple(band.name for band in self.bands)

    def read(self, window: Window, names: Sequence[str] = ()) -> NDArray[np.float32]:
        """Return a window as (height, width, bands) in the units of the bands, NaN where there are no data.

        `names` are the wanted bands in order (empty: all). Pixels outside of the raster are missing data.

        Raises:
            DataError: a band is missing, or the file is broken there.
        """
        called = " + ".join(one.name for one in self._files)
        wanted = places(self.names, names, called) if names else list(range(len(self.bands)))
        left, top, right, bottom = window
        found = np.full((bottom - top, right - left, len(wanted)), np.nan, np.float32)
        if (whole := self._in_memory(window)) is not None:
            _copy(found, whole, window, wanted)
            return found
        first = 0
        masks: dict[Path, NDArray[np.bool_]] = {}
        for file in self._files:
            own = [
                (at, place - first) for at, place in enumerate(wanted) if 0 <= place - first < len(file.bands)
            ]
            if own:
                self._fill(found, file, window, own, masks)
            first += len(file.bands)
        return found

    def _in_memory(self, window: Window) -> NDArray[np.float32] | None:
        """Return all bands of the raster, if it is small and many small windows of it are read; else None."""
        left, top, right, bottom = window
        if self._whole is None or max(right - left, bottom - top) > _SMALL:
            return None
        self._small += 1
        return self._whole() if self._small > _MANY else None

    def _fill(
        self,
        found: NDArray[np.float32],
        file: _File,
        window: Window,
        own: Sequence[tuple[int, int]],
        masks: dict[Path, NDArray[np.bool_]],
    ) -> None:
        """Put bands of one file into a window; `masks` keeps what is no ground of files of clouds already read."""
        left, top, right, bottom = window
        inside = (max(left, 0), max(top, 0), min(right, self.grid.width), min(bottom, self.grid.height))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            return
        at, which = [pair[0] for pair in own], [pair[1] for pair in own]
        values = _values(file, inside, which)
        if file.empty is not None:
            values[values == file.empty] = np.nan
        if file.clouds is not None:
            values[:, _no_ground(file.clouds, inside, masks)] = np.nan
        values = values * file.scales[which, None, None] + file.offsets[which, None, None]
        rows, cols = slice(inside[1] - top, inside[3] - top), slice(inside[0] - left, inside[2] - left)
        found[rows, cols, at] = values.transpose(1, 2, 0)


def open_stack(root: Path, path: str) -> Stack:
    """Return the stack of one file, or of several joined by `|`, relative to `root`; opened once in each thread.

    Raises:
        DataError: a file is missing, broken or no raster, or the files do not lie on one another.
        MissingExtraError: rasterio is not installed.
    """
    paths = tuple(str(root / one) for one in path.split(JOIN))
    try:
        changed = tuple(os.stat(one).st_mtime_ns for one in paths)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror} ({error.filename}). Put it back."
        ) from error
    return _opened(paths, changed, os.getpid(), get_ident())


@lru_cache(maxsize=16)
def _opened(paths: tuple[str, ...], changed: tuple[int, ...], process: int, thread: int) -> Stack:
    """Open the files; handles of GDAL belong to one process and one thread."""
    return stack_of(_datasets(paths), partial(_held, paths, changed))


def _datasets(paths: Sequence[str]) -> list[tuple[Path, Any]]:
    return [(path, dataset_of(path)) for path in map(Path, paths)]


@lru_cache(maxsize=1)
def _held(paths: tuple[str, ...], changed: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return a whole raster (height, width, bands), shared by threads and forked processes; None if it is broken."""
    stack = stack_of(_datasets(paths))
    try:
        return stack.read(stack.grid.whole)
    except DataError:
        return None  # whoever reads its windows is told which place is broken


def stack_of(
    datasets: Sequence[tuple[Path, Any]], whole: Callable[[], NDArray[np.float32] | None] | None = None
) -> Stack:
    """Return opened data sets of rasterio, with their names, as a stack.

    `whole` returns all of it from memory, if it is small; many small windows are then cut out of that.

    Raises:
        DataError: they do not lie on one another.
    """
    grids = [grid_of(one) for _, one in datasets]
    areas = [grid.pixel[0] * grid.pixel[1] if grid.located else 1.0 for grid in grids]
    grid = grids[min(range(len(grids)), key=lambda i: areas[i])]
    files = [_on_grid(path, one, own, grid) for (path, one), own in zip(datasets, grids, strict=True)]
    size = 4 * grid.height * grid.width * sum(len(one.bands) for one in files)
    return Stack(files, grid, whole if size <= _HELD else None)


def _copy(
    found: NDArray[np.float32], whole: NDArray[np.float32], window: Window, wanted: Sequence[int]
) -> None:
    """Put the part of a window that lies inside a raster into it."""
    left, top, right, bottom = window
    rows, cols = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    part = whole[rows, cols]
    part = part if len(wanted) == whole.shape[2] and list(wanted) == sorted(wanted) else part[..., wanted]
    y, x = max(-top, 0), max(-left, 0)
    found[y : y + part.shape[0], x : x + part.shape[1]] = part


def stack_of_bytes(data: bytes, name: str) -> Stack:
    """Return a raster file in memory as a stack.

    Raises:
        DataError: it is broken, or no raster.
    """
    return stack_of([(Path(name), dataset_of_bytes(data, name))])


def _on_grid(path: Path, dataset: Any, own: Grid, grid: Grid) -> _File:
    bands = _bands(path, dataset)
    scales, offsets = np.asarray(dataset.scales, np.float32), np.asarray(dataset.offsets, np.float32)
    if own == grid:
        return _of_product(path, _File(path.name, dataset, bands, scales, offsets), grid)
    if not (own.located and grid.located):
        raise DataError(
            f"{path.name} has {own.width} x {own.height} pixels without a place on the Earth, the others "
            f"{grid.width} x {grid.height}. Georeference it, or give it the same pixels."
        )
    nodata = NO_DATA if dataset.nodata is None and product_of(path) is not None else dataset.nodata
    view = warped(dataset, grid, "bilinear", (nodata, np.nan), "float32")
    if corners_beside(dataset, grid) is not None:
        raise DataError(
            f"{path.name} ({_crs(own)}) and the file with the smallest pixels ({_crs(grid)}) share no place. Give "
            "files of one area, or mend the coordinate system that one of them states."
        )
    note = f"{path.name} is resampled (bilinear) from {_pixels(own)} to {_pixels(grid)}."
    return _of_product(path, _File(path.name, view, bands, scales, offsets, (note,)), grid)


def _of_product(path: Path, file: _File, grid: Grid) -> _File:
    """Return a file with the reflectance and the clouds of its Sentinel-2 product, if it is of one."""
    product = product_of(path)
    if product is None or len(file.bands) != 1:
        return file
    scale, offset = product.reflectance(file.bands[0].name)
    scales, offsets = np.array([scale], np.float32), np.array([offset], np.float32)
    bands = (file.bands[0]._replace(unit="reflectance"),)
    clouds = product.clouds and (
        product.clouds,
        warped(dataset_of(product.clouds), grid, "nearest", (None, 0)),
    )
    return file._replace(
        bands=bands,
        scales=scales,
        offsets=offsets,
        notes=(*file.notes, product.note()),
        empty=float(NO_DATA),
        clouds=clouds or None,
    )


def _no_ground(
    clouds: tuple[Path, Any], window: Window, masks: dict[Path, NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    path, dataset = clouds
    if path not in masks:
        nothing = np.ones(1, np.float32)
        file = _File(path.name, dataset, (Band("clouds"),), nothing, nothing)
        masks[path] = is_no_ground(_values(file, window, [0])[0], path)
    return masks[path]


def _pixels(grid: Grid) -> str:
    crs = rasterio().crs.CRS.from_wkt(grid.crs)
    unit = "degrees" if crs.is_geographic else "m"
    return f"{grid.pixel[0]:.6g} x {grid.pixel[1]:.6g} {unit} of {_crs(grid)}"


def _crs(grid: Grid) -> str:
    crs = rasterio().crs.CRS.from_wkt(grid.crs)
    return str(crs.to_string()) if crs.to_epsg() else "its own coordinates"


def _bands(path: Path, dataset: Any) -> tuple[Band, ...]:
    known = name_of_file(path.name) if dataset.count == 1 else ""
    meant = [one.name if one.name in _COLOURS else "" for one in dataset.colorinterp]
    texts = zip(dataset.descriptions, meant, strict=True)
    names = [text or known or colour or f"band {i}" for i, (text, colour) in enumerate(texts, 1)]
    return tuple(Band(name, unit or "") for name, unit in zip(names, dataset.units, strict=True))


def _values(file: _File, window: Window, which: Sequence[int]) -> NDArray[np.float32]:
    """Return (bands, height, width) of a window inside the raster as stored, NaN where there are no data."""
    left, top, right, bottom = window
    module = rasterio()
    view = import_module("rasterio.windows").Window(left, top, right - left, bottom - top)
    try:
        found = file.read.read([i + 1 for i in which], window=view, masked=True)
    except (module.errors.RasterioError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(
            f"{file.name} is broken at pixels {left},{top} to {right},{bottom} ({reason}). Copy it again from where "
            "it came from."
        ) from error
    values: NDArray[np.float32] = found.astype(np.float32).filled(np.nan)
    values[~np.isfinite(values)] = np.nan
    return values
