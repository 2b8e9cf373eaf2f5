"""Draw polygons and points on a grid: a pixel has the class of the polygon that contains its centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import count, natural
from vitrail.data.rasters.grid import IDENTITY, Grid
from vitrail.data.rasters.label_layers import GRID, Layer
from vitrail.data.rasters.labels import LabelMap, blank, strips

_SPLITS = ("", "train", "val", "test")
_POINTS, _POLYGONS = (0, 4), (3, 6)  # type numbers of shapely
_Box = tuple[int, int, int, int]


class _Drawn(NamedTuple):
    """A layer in pixels of a grid: polygons and points with the number of their class and of their split."""

    polygons: NDArray[Any]
    of_polygon: NDArray[np.intp]
    split_of_polygon: NDArray[np.intp]
    points: NDArray[np.intp]  # (n, 2), row and column
    of_point: NDArray[np.intp]
    split_of_point: NDArray[np.intp]


def of_layer(layer: Layer, grid: Grid) -> LabelMap:
    """Return the labels of a layer on a grid.

    Raises:
        DataError: the layer lies beside the grid, has no CRS, or has neither polygons nor points.
    """
    layer, said = _in_grid(layer, grid)
    names = tuple(sorted(set(layer.classes), key=natural))
    drawn, left = _drawn(layer, names)
    found, splits = blank(grid, len(names)), None
    clashes = _draw_polygons(found, grid, drawn) + _draw_points(found, grid, drawn)
    if not found.any():
        raise _nothing(layer, grid, drawn)
    if any(layer.splits):
        splits = blank(grid, len(_SPLITS))
        _draw_splits(splits, grid, drawn)
    notes = [*layer.notes, *said, *left, *_small(layer.name, grid, drawn)]
    if clashes:
        notes.append(
            f"{count(clashes, 'pixel')} of {layer.name} with two classes left out, because polygons or points overlap."
        )
    return LabelMap(found, names, (), tuple(notes), splits)


def _in_grid(layer: Layer, grid: Grid) -> tuple[Layer, list[str]]:
    """Return the layer in pixels (column, row) of the grid, and a note if it is brought to another CRS."""
    shapely = import_module("shapely")
    shapes, notes = layer.shapes, []
    if not layer.crs and grid.located:
        raise DataError(
            f"{layer.name} does not say its coordinate system (CRS), and the raster has one. Assign it, for instance "
            "in QGIS, and save the layer again."
        )
    if layer.crs not in {"", GRID} and not grid.located:
        raise DataError(
            f"The raster has coordinates but no coordinate system (CRS), and {layer.name} has one. Assign the CRS of "
            "the raster: gdal_edit.py -a_srs EPSG:NUMBER RASTER"
        )
    if layer.crs not in {"", GRID}:
        pyproj = import_module("pyproj")
        own, wanted = pyproj.CRS(layer.crs), pyproj.CRS(grid.crs)
        if not own.equals(wanted, ignore_axis_order=True):
            move = pyproj.Transformer.from_crs(own, wanted, always_xy=True).transform
            shapes = shapely.transform(shapes, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))
            notes.append(f"{layer.name} is brought from {own.name} to {wanted.name}, that of the raster.")
    inverse = ~import_module("affine").Affine(*grid.transform)
    turn = np.array([[inverse.a, inverse.d], [inverse.b, inverse.e]])
    moved = shapely.transform(shapes, lambda xy: xy @ turn + (inverse.c, inverse.f))
    return layer._replace(shapes=moved), notes


def _drawn(layer: Layer, names: Sequence[str]) -> tuple[_Drawn, list[str]]:
    shapely = import_module("shapely")
    places = {name: i for i, name in enumerate(names)}
    classes = np.array([places[one] for one in layer.classes], np.intp)
    splits = np.array([_SPLITS.index(one) for one in layer.splits], np.intp)
    kinds = shapely.get_type_id(layer.shapes)
    areas, dots = np.isin(kinds, _POLYGONS), np.isin(kinds, _POINTS)
    lines = int((~(areas | dots)).sum())
    if lines == len(kinds):
        raise DataError(
            f"{layer.name} holds neither polygons nor points. Draw areas or points of the classes."
        )
    xy, of = shapely.get_coordinates(layer.shapes[dots], return_index=True)
    where = np.floor(xy[:, ::-1]).astype(np.intp).reshape(-1, 2)
    notes = [f"{count(lines, 'line')} of {layer.name} left aside: only polygons and points are labels."]
    drawn = _Drawn(
        layer.shapes[areas], classes[areas], splits[areas], where, classes[dots][of], splits[dots][of]
    )
    return drawn, notes if lines else []


def _burn(shapes: NDArray[Any], box: _Box) -> NDArray[np.bool_]:
    """Return which pixels of a box (left, top, right, bottom) have their centre in one of the polygons."""
    left, top, right, bottom = box
    burnt: NDArray[np.bool_] = (
        import_module("rasterio.features")
        .rasterize(
            [(one, 1) for one in shapes],
            out_shape=(bottom - top, right - left),
            transform=import_module("affine").Affine.translation(left, top),
            dtype="uint8",
        )
        .astype(bool)
    )
    return burnt


def _box(shapes: NDArray[Any], inside: _Box) -> _Box | None:
    """Return the pixels around polygons that lie inside a box, or None."""
    if not len(shapes):
        return None
    bounds = import_module("shapely").total_bounds(shapes)
    left, top = np.floor(bounds[:2]).clip(inside[:2], inside[2:]).astype(int).tolist()
    right, bottom = np.ceil(bounds[2:]).clip(inside[:2], inside[2:]).astype(int).tolist()
    return (left, top, right, bottom) if left < right and top < bottom else None


def _draw_polygons(found: NDArray[Any], grid: Grid, drawn: _Drawn) -> int:
    """Draw all classes; return how many pixels are left out because two classes claim them."""
    clashes = 0
    for top, bottom in strips(grid):
        clash = np.zeros((bottom - top, grid.width), bool)
        for kind in np.unique(drawn.of_polygon):
            shapes = drawn.polygons[drawn.of_polygon == kind]
            box = _box(shapes, (0, top, grid.width, bottom))
            if box is None:
                continue
            there = _burn(shapes, box)
            view = found[box[1] : box[3], box[0] : box[2]]
            clash[box[1] - top : box[3] - top, box[0] : box[2]] |= there & (view > 0)
            view[there & (view == 0)] = kind + 1
        found[top:bottom][clash] = 0
        clashes += int(clash.sum())
    return clashes


def _draw_points(found: NDArray[Any], grid: Grid, drawn: _Drawn) -> int:
    """Draw points where no polygon has another class; return how many pixels have two classes."""
    rows, cols, of, _ = _inside(grid, drawn)
    if not len(of):
        return 0
    flat = rows * grid.width + cols
    pixels, where = np.unique(flat, return_inverse=True)
    low, high = np.full(len(pixels), len(found), np.int64), np.full(len(pixels), -1, np.int64)
    low[:] = np.iinfo(np.int64).max
    np.minimum.at(low, where, of + 1)
    np.maximum.at(high, where, of + 1)
    at = np.divmod(pixels, grid.width)
    before = found[at].astype(np.int64)
    bad = (low != high) | ((before > 0) & (before != high))
    found[at] = np.where(bad, 0, high)
    return int(bad.sum())


def _inside(grid: Grid, drawn: _Drawn) -> tuple[NDArray[np.intp], ...]:
    """Return row, column, class and split of the points inside a grid."""
    rows, cols = drawn.points.T
    there = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    return rows[there], cols[there], drawn.of_point[there], drawn.split_of_point[there]


def _draw_splits(splits: NDArray[Any], grid: Grid, drawn: _Drawn) -> None:
    """Draw the given splits; where they overlap, val wins over train and test over both."""
    rows, cols, _, of = _inside(grid, drawn)
    for number in range(1, len(_SPLITS)):
        shapes = drawn.polygons[drawn.split_of_polygon == number]
        for top, bottom in strips(grid):
            if box := _box(shapes, (0, top, grid.width, bottom)):
                splits[box[1] : box[3], box[0] : box[2]][_burn(shapes, box)] = number
        splits[rows[of == number], cols[of == number]] = number


def _small(name: str, grid: Grid, drawn: _Drawn) -> list[str]:
    """Return notes on polygons beside the raster, and on those that contain the centre of no pixel."""
    shapely = import_module("shapely")
    whole = (0, 0, grid.width, grid.height)
    beside, empty = 0, 0
    thin = shapely.area(drawn.polygons) <= shapely.length(drawn.polygons)
    bounds = shapely.bounds(drawn.polygons).reshape(-1, 4)
    outside = (bounds[:, :2] >= whole[2:]).any(1) | (bounds[:, 2:] <= whole[:2]).any(1)
    beside = int(outside.sum()) + len(drawn.points) - len(_inside(grid, drawn)[0])
    for one in np.flatnonzero(thin & ~outside):
        box = _box(drawn.polygons[one : one + 1], whole)
        empty += box is None or not _burn(drawn.polygons[one : one + 1], box).any()
    notes = []
    if beside:
        notes.append(f"{count(beside, 'place')} of {name} outside the raster left aside.")
    if empty:
        are = "is" if empty == 1 else "are"
        notes.append(
            f"{count(empty, 'polygon')} of {name} {are} so small that no centre of a pixel lies inside."
        )
    return notes


def _nothing(layer: Layer, grid: Grid, drawn: _Drawn) -> DataError:
    """Return the error of labels without a pixel: beside the raster, or too small."""
    whole = replace(grid, transform=IDENTITY)
    bounds = import_module("shapely").total_bounds(layer.shapes)
    near = bounds[0] < whole.width and bounds[1] < whole.height and bounds[2] > 0 and bounds[3] > 0
    if near:
        return DataError(
            f"No polygon of {layer.name} holds the centre of a pixel where only one class lies. Draw larger polygons, "
            "or give points."
        )
    corners = [place_of(grid, x, y) for x, y in (bounds[:2], bounds[2:])]
    return beside(layer.name, grid, corners)


def beside(name: str, grid: Grid, corners: Sequence[tuple[float, float]]) -> DataError:
    """Return the error of labels that lie beside a raster; `corners` are those of the labels, in its coordinates."""
    own = [place_of(grid, 0, 0), place_of(grid, grid.width, grid.height)]
    said = [
        f"x {_plain(min(a[0], b[0]))} to {_plain(max(a[0], b[0]))}, y {_plain(min(a[1], b[1]))} to "
        f"{_plain(max(a[1], b[1]))}"
        for a, b in (corners, own)
    ]
    return DataError(
        f"{name} lies beside the raster: the labels at {said[0]}, the raster at {said[1]} (coordinates of the raster). "
        "Check the coordinate system that the labels state, or give the scene for which they were drawn."
    )


def _plain(value: float) -> str:
    """Return a coordinate: degrees with four digits, metres as whole numbers."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def place_of(grid: Grid, column: float, row: float) -> tuple[float, float]:
    """Return the coordinates (x, y) of a place in pixels."""
    a, b, c, d, e, f = grid.transform
    return float(a * column + b * row + c), float(d * column + e * row + f)
