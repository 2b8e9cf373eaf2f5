"""Areas on the ground: of the pixels of a grid, row by row, and of the classes of a map."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import MissingExtraError
from vitrail.data.rasters.grid import Grid

HECTARE = 1e4

DISTORTED = 0.01
"""Difference between areas of a projection and those on the ellipsoid that is told."""

_SPAN = 100  # pixels of the square whose area is compared


class RowAreas(NamedTuple):
    """The area of a pixel of each row in hectares, (height,), or None without a place on the Earth; and a remark."""

    hectares: NDArray[np.float64] | None
    remark: str = ""


def row_areas(grid: Grid) -> RowAreas:
    """Return the area of a pixel in every row of a grid: by the unit of a projection; for degrees on the ellipsoid."""
    crs = _crs(grid)
    if crs is None:
        return RowAreas(None, "Without georeference only pixels are counted.")
    if crs.is_geographic:
        middle = grid.width // 2
        return RowAreas(
            np.array([_on_ellipsoid(crs, grid, middle, row, 1) for row in range(grid.height)]) / HECTARE
        )
    area = _by_unit(crs, grid)
    return RowAreas(np.full(grid.height, area / HECTARE), _distortion(crs, grid, area))


def pixel_side(grid: Grid) -> float:
    """Return the side in metres of a square as large as a pixel in the middle of a grid; 0: unknown."""
    crs = _crs(grid)
    if crs is None:
        return 0.0
    if crs.is_geographic:
        return float(_on_ellipsoid(crs, grid, grid.width // 2, grid.height // 2, 1) ** 0.5)
    return float(_by_unit(crs, grid) ** 0.5)


def _crs(grid: Grid) -> Any:
    """Return the coordinates of pyproj; None without a place on the Earth, or without a unit."""
    if not grid.located:
        return None
    crs = _pyproj().CRS.from_wkt(grid.crs)
    return crs if crs.is_geographic or (crs.axis_info and crs.is_projected) else None


def _pyproj() -> Any:
    try:
        return import_module("pyproj")
    except ImportError as error:
        raise MissingExtraError("Areas need pyproj: pip install 'vitrail[raster]'.") from error


def _by_unit(crs: Any, grid: Grid) -> float:
    """Return the square metres of a pixel of a projection."""
    a, b, _, d, e, _ = grid.transform
    unit = float(crs.axis_info[0].unit_conversion_factor)
    return abs(a * e - b * d) * unit * unit


def _on_ellipsoid(crs: Any, grid: Grid, col: int, row: int, span: int) -> float:
    """Return the square metres of a square of pixels on the ellipsoid; `crs` has degrees."""
    xs, ys = _corners(grid, col, row, span)
    return abs(float(crs.get_geod().polygon_area_perimeter(xs, ys)[0]))


def _corners(grid: Grid, col: int, row: int, span: int) -> tuple[list[float], list[float]]:
    a, b, c, d, e, f = grid.transform
    corners = [(col, row), (col + span, row), (col + span, row + span), (col, row + span)]
    return [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]


def _distortion(crs: Any, grid: Grid, area: float) -> str:
    """Return a remark on a projection whose areas differ from those on the ellipsoid in the middle of the grid."""
    if crs.geodetic_crs is None:
        return ""
    to_degrees = _pyproj().Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    xs, ys = _corners(grid, grid.width // 2 - _SPAN // 2, grid.height // 2 - _SPAN // 2, _SPAN)
    there = abs(float(crs.get_geod().polygon_area_perimeter(*to_degrees.transform(xs, ys))[0])) / _SPAN**2
    if not np.isfinite(there) or there <= 0 or abs(area / there - 1) <= DISTORTED:
        return ""
    return (
        f"Areas in this projection are {area / there:.3g} times those on the ground in the middle of the map. For true "
        "areas reproject the map to an equal-area projection."
    )
