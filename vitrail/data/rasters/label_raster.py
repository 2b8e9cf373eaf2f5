"""Rasters of classes as labels: each value is a class, 0 and no data are none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import label, natural, shorten
from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.label_shapes import beside
from vitrail.data.rasters.labels import MOST, Colour, LabelMap, blank, strips
from vitrail.data.rasters.open_files import dataset_of, grid_of, rasterio
from vitrail.data.rasters.warped import corners_beside, warped

_LISTS = frozenset(("class_names", "classnames", "classes", "names", "categories"))
_ONE = re.compile(r"(?:class|name|value|category)?[_ ]?(\d+)(?:_name)?", re.IGNORECASE)


class _Meaning(NamedTuple):
    """What values are called, and their colours, where the file tells."""

    names: Mapping[int, str]
    colours: Mapping[int, Colour]


def of_raster(path: Path, grid: Grid) -> LabelMap:
    """Return the classes of a raster on a grid; another grid is resampled (nearest).

    Raises:
        DataError: unreadable, beside the grid, of another size without georeference, or its values are no classes.
    """
    dataset = dataset_of(path)
    own = grid_of(dataset)
    read, notes = dataset, []
    if own.located and grid.located and own != grid:
        if (corners := corners_beside(dataset, grid)) is not None:
            raise beside(path.name, grid, corners)
        read = warped(dataset, grid, "nearest", (dataset.nodata, dataset.nodata or 0))
        notes.append(f"{path.name} lies on another grid and is resampled to that of the raster (nearest).")
    elif (own.height, own.width) != (grid.height, grid.width):
        raise DataError(
            f"{path.name} has {own.width} x {own.height} pixels and the raster {grid.width} x {grid.height}, and not "
            "both have a place on the Earth. Georeference them, or give labels of the same size."
        )
    elif own.located != grid.located:
        notes.append(f"{path.name} and the raster have the same size, so it is taken pixel by pixel.")
    values = _values(path, read, grid)
    if not values:
        raise DataError(
            f"{path.name} labels no pixel of the raster: it is 0 or has no data everywhere there."
        )
    return _named(path, read, grid, values, notes)


def _named(path: Path, read: Any, grid: Grid, values: set[int], notes: list[str]) -> LabelMap:
    meaning = _meaning(path, read)
    called = {value: meaning.names.get(value) or str(value) for value in values}
    names = tuple(sorted(set(called.values()), key=natural))
    places = {name: i + 1 for i, name in enumerate(names)}
    found = blank(grid, len(names))
    ordered = np.array(sorted(values))
    numbers = np.array([places[called[value]] for value in ordered.tolist()], found.dtype)
    for top, bottom in strips(grid):
        own = _read(path, read, grid, top, bottom)
        at = np.searchsorted(ordered, own).clip(0, len(ordered) - 1)
        found[top:bottom] = np.where(ordered[at] == own, numbers[at], 0)
    colour_of = {called[value]: colour for value, colour in meaning.colours.items() if value in called}
    colours = tuple(colour_of[name] for name in names) if set(names) <= set(colour_of) else ()
    bare = [str(value) for value in sorted(values) if value not in meaning.names]
    if bare:
        notes.append(f"{path.name} does not name the values {shorten(bare, 8)}: the classes are called so.")
    return LabelMap(found, names, colours, tuple(notes))


def _values(path: Path, read: Any, grid: Grid) -> set[int]:
    """Return the values that occur, without 0 and no data."""
    found: set[int] = set()
    for top, bottom in strips(grid):
        found.update(np.unique(_read(path, read, grid, top, bottom)).tolist())
        if len(found) > MOST:
            raise DataError(
                f"{path.name} has over {MOST:,} values, so they are no classes. Give a raster of classes."
            )
    return found - {0}


def _read(path: Path, read: Any, grid: Grid, top: int, bottom: int) -> NDArray[np.int64]:
    """Return the values of some rows, 0 where there are no data; DataError for broken files and fractions."""
    module = rasterio()
    view = import_module("rasterio.windows").Window(0, top, grid.width, bottom - top)
    try:
        values = read.read(1, window=view, masked=True).filled(0)
    except module.errors.RasterioError as error:
        raise DataError(f"{path.name} is broken ({error}). Copy it again from where it came from.") from error
    values = np.nan_to_num(values, nan=0.0) if values.dtype.kind == "f" else values
    whole: NDArray[np.int64] = values.astype(np.int64)
    if values.dtype.kind == "f" and (whole != values).any():
        raise DataError(
            f"{path.name} holds fractions, so its values are no classes. Give a raster of whole numbers."
        )
    return whole


def _meaning(path: Path, dataset: Any) -> _Meaning:
    """Return the names and colours that tags, the colour table or the file beside the raster (.aux.xml) state."""
    names = {**_in_tags(dataset.tags()), **_in_tags(dataset.tags(1))}
    colours: dict[int, Colour] = {}
    with suppress(ValueError):  # no colour table
        colours = {value: (r, g, b) for value, (r, g, b, _) in dataset.colormap(1).items()}
    beside_it = path.with_name(f"{path.name}.aux.xml")
    if beside_it.is_file():
        try:
            stated = _in_xml(ElementTree.fromstring(beside_it.read_bytes()))
        except (ElementTree.ParseError, OSError):
            return _Meaning(names, colours)
        return _Meaning({**stated.names, **names}, {**stated.colours, **colours})
    return _Meaning(names, colours)


def _in_tags(tags: Mapping[str, str]) -> dict[int, str]:
    """Return value → name from tags: a list of names from 1 on, JSON of values and names, or one tag a value."""
    found: dict[int, str] = {}
    for key, text in tags.items():
        if key.casefold() in _LISTS:
            found.update(_listed(text))
        elif match := _ONE.fullmatch(key):
            found[int(match[1])] = label(text)
    return {value: name for value, name in found.items() if name}


def _listed(text: str) -> dict[int, str]:
    try:
        stated = json.loads(text)
    except ValueError:
        stated = re.split(r"[|;,]", text)
    if isinstance(stated, dict):
        return {int(value): label(str(name)) for value, name in stated.items() if str(value).isdigit()}
    return {i: label(str(name)) for i, name in enumerate(stated, 1)} if isinstance(stated, list) else {}


def _in_xml(root: ElementTree.Element) -> _Meaning:
    """Return what GDAL keeps beside a raster: names of categories, or an attribute table."""
    names = {i: label(one.text or "") for i, one in enumerate(root.iterfind(".//CategoryNames/Category"))}
    fields = [(one.findtext("Name") or "").casefold() for one in root.iterfind(".//FieldDefn")]
    colours: dict[int, Colour] = {}
    value = next((i for i, name in enumerate(fields) if name in {"value", "id", "code", "class_id"}), None)
    text = next((i for i, name in enumerate(fields) if re.search("name|class|label|categor", name)), None)
    parts = [fields.index(one) for one in ("red", "green", "blue") if one in fields]
    for row in root.iterfind(".//GDALRasterAttributeTable/Row"):
        cells = [one.text or "" for one in row.iterfind("F")]
        try:
            number = int(float(cells[value])) if value is not None else int(row.get("index", "-1"))
            if text is not None:
                names[number] = label(cells[text])
            if len(parts) == 3:
                r, g, b = (int(float(cells[i])) for i in parts)
                colours[number] = r, g, b
        except (ValueError, IndexError):
            continue
    return _Meaning({number: name for number, name in names.items() if name}, colours)
