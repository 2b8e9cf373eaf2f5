"""Read places with classes: polygons and points of vector files, and points of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError, UnknownNameError
from vitrail.data.labels import count, label, shorten, splits_of
from vitrail.data.options import LayoutOptions
from vitrail.data.table_files import read_table

VECTORS = (".gpkg", ".geojson", ".shp", ".fgb", ".json")
"""Suffixes of vector files."""

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".jsonl", ".ndjson")
"""Suffixes of tables that may hold points."""

_CLASS = (
    "class", "label", "type", "klass", "name", "category", "classname", "class_name", "landcover", "land_cover",
    "lulc", "cover", "kind", "species", "crop", "habitat",
)  # fmt: skip
_PAIRS = (("longitude", "latitude"), ("lon", "lat"), ("lng", "lat"), ("easting", "northing"), ("x", "y"))
_DEGREES = 3  # the first pairs are in degrees of WGS 84
_SPLIT = "split"


class Layer(NamedTuple):
    """Places of one file: `shapes` of shapely with a class and a split ("" without) each, and their CRS as text."""

    name: str
    shapes: NDArray[Any]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    crs: str
    notes: tuple[str, ...] = ()


def read_layer(path: Path, column: str, options: LayoutOptions) -> Layer:
    """Return the places of a vector file or of a table of points; `column` is that of the classes ("": found).

    Raises:
        DataError: broken, without places, or without a column of classes.
        MissingExtraError: pyogrio is not installed.
    """
    if path.suffix.lower() in VECTORS:
        columns, shapes, crs = _vector(path)
    else:
        columns, shapes, crs = _table(path)
    chosen = _class_column(columns, column, path.name)
    classes = [_text(value) for value in columns[chosen]]
    splits, said = _splits(columns, options, path.name)
    usable = np.array([shape is not None and not shape.is_empty for shape in shapes], bool)
    kept = [i for i, name in enumerate(classes) if name and usable[i]]
    if not kept:
        raise DataError(
            f"{path.name} has no place with a class in its column {chosen!r}. Fill it, or name another column: "
            f"--labels {path.name}:COLUMN ({shorten(columns, 12)})"
        )
    notes = [*said]
    if len(kept) < len(classes):
        left = count(len(classes) - len(kept), "row")
        notes.append(f"{left} of {path.name} without a place or a class left aside.")
    return Layer(
        path.name, shapes[kept], tuple(classes[i] for i in kept), tuple(splits[i] for i in kept), crs, tuple(notes)
    )  # fmt: skip


def _vector(path: Path) -> tuple[dict[str, list[Any]], NDArray[Any], str]:
    """Return the columns, the shapes and the CRS of a vector file."""
    try:
        raw, shapely = import_module("pyogrio.raw"), import_module("shapely")
        errors = import_module("pyogrio.errors")
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} needs pyogrio and shapely to be read: pip install 'vitrail[raster]'."
        ) from error
    try:
        layers = import_module("pyogrio").list_layers(path)
        with_places = [name for name, kind in layers if kind is not None]
        if len(with_places) > 1:
            raise DataError(
                f"{path.name} holds the layers {shorten(with_places, 8)}. Save the one with the labels as a file of "
                "its own."
            )
        if not with_places:
            raise DataError(f"{path.name} holds no polygons or points. Export the layer of the labels again.")
        meta, _, wkb, fields = raw.read(path, layer=with_places[0])
    except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read ({error}). Export it again.") from error
    columns = dict(zip(map(str, meta["fields"]), (list(one) for one in fields), strict=True))
    return columns, np.asarray(shapely.from_wkb(wkb)), str(meta["crs"] or "")


def _table(path: Path) -> tuple[dict[str, list[Any]], NDArray[Any], str]:
    """Return the columns of a table, its points, and their CRS: WGS 84 for degrees, else "grid"."""
    try:
        shapely = import_module("shapely")
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} needs shapely to be read: pip install 'vitrail[raster]'."
        ) from error
    try:
        frame = read_table(path.name, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}. Check its permissions.") from error
    known = {name.strip().casefold(): name for name in frame.columns}
    pair = next((i for i, one in enumerate(_PAIRS) if all(name in known for name in one)), None)
    if pair is None:
        raise DataError(
            f"{path.name} has no columns of places. Call them x and y (coordinates of the raster) or longitude and "
            f"latitude; it has {shorten(frame.columns, 12)}."
        )
    x, y = (known[name] for name in _PAIRS[pair])
    places = np.array([[_number(cell) for cell in frame[one]] for one in (x, y)], np.float64)
    shapes = np.full(len(frame), None, object)
    there = np.isfinite(places).all(0)
    shapes[there] = shapely.points(places[0, there], places[1, there])
    columns = {name: frame[name].to_list() for name in frame.columns if name not in {x, y}}
    return columns, shapes, "EPSG:4326" if pair < _DEGREES else GRID


GRID = "grid"
"""Stands for the CRS of the raster, in which tables without degrees are."""


def _number(cell: object) -> float:
    try:
        return float(str(cell).strip().replace(",", "."))
    except ValueError:
        return math.nan


def _text(value: Any) -> str:
    """Return a cell as the name of a class; whole numbers without a point, "" for an empty one."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return label(str(value))


def _class_column(columns: Mapping[str, Sequence[Any]], wanted: str, file: str) -> str:
    """Return the column of the classes.

    Raises:
        UnknownNameError: there is no such column.
        DataError: it is not clear which one it is.
    """
    folded = {name.casefold(): name for name in reversed(list(columns))}
    if wanted:
        if wanted.casefold() not in folded:
            raise UnknownNameError(
                "column", wanted, columns, f"{file} has: {shorten(columns, 12) or 'none'}."
            )
        return folded[wanted.casefold()]
    named = [folded[name] for name in _CLASS if name in folded]
    if named:
        return named[0]
    others = {name: cells for name, cells in columns.items() if name.casefold() != _SPLIT}
    for kind in (str, int):
        fitting = [name for name, cells in others.items() if _holds(cells, kind)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    raise DataError(
        f"{file} does not say which column holds the classes: it has {shorten(columns, 12) or 'none'}. Name it: "
        f"--labels {file}:COLUMN"
    )


def _holds(cells: Sequence[Any], kind: type) -> bool:
    """Return whether a column holds texts, or whole numbers."""
    there = [cell for cell in cells if _text(cell)]
    if kind is str:
        return bool(there) and all(isinstance(cell, str) and math.isnan(_number(cell)) for cell in there)
    return bool(there) and all(float(_number(cell)).is_integer() for cell in there)


def _splits(
    columns: Mapping[str, Sequence[Any]], options: LayoutOptions, file: str
) -> tuple[list[str], list[str]]:
    """Return the split of each row, and a note on the column that states it."""
    number = len(next(iter(columns.values()), ()))
    folded = {name.casefold(): name for name in columns}
    asked = "" if "=" in options.splits or options.splits == "none" else options.splits
    column = folded.get((asked or _SPLIT).casefold())
    if asked and column is None:
        raise UnknownNameError("column", asked, columns, f"{file} has: {shorten(columns, 12)}.")
    if column is None or options.splits == "none":
        return [""] * number, []
    cells = [_text(cell) for cell in columns[column]]
    told = options.split_words or splits_of(sorted(set(cells) - {""}))
    wrong = sorted(set(cells) - set(told) - {""})
    if wrong:
        raise DataError(
            f"{file} has the split {wrong[0]!r} in its column {column!r}. Write train, val or test, or say what the "
            f"words mean: --splits {wrong[0]}=train, or --splits none"
        )
    return [told.get(cell, "") for cell in cells], [f"{file}: the splits are those of its column {column!r}."]
