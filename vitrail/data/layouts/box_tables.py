"""Read tables with one box in each row: an image, four corners and a class; empty corners are background."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from vitrail.data.image_finder import GONE, Finder, folder_of
from vitrail.data.labels import count, is_image, shorten, split_in, split_of
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage
from vitrail.data.layouts.yolo import upright_size
from vitrail.data.table_files import code_of, plain

ONE_CLASS = "object"
"""The class of boxes in a table without a column of classes."""

_SUFFIXES = (".csv", ".tsv")

_IMAGE = (
    "imagepath",
    "filename",
    "image",
    "path",
    "filepath",
    "file",
    "img",
    "imgpath",
    "imagename",
    "imageid",
)
_KIND = ("label", "class", "classname", "category", "labelname", "name", "categoryname", "species")
_SPLIT = ("split", "subset", "set", "partition")
_CROWD = ("iscrowd", "isgroupof", "difficult")
_HEIGHT, _WIDTH = ("height", "imageheight", "imgheight"), ("width", "imagewidth", "imgwidth")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
)
_SIDES = (
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
)
"""Corner and length of the sides instead of two corners."""

_BARE = ("path", "x1", "y1", "x2", "y2", "label")
"""The columns of a table without a header, as keras-retinanet writes it."""

_SOME = 50  # rows that show whether a table without a header has boxes


class _Columns(NamedTuple):
    """The places of the columns; -1 for those that a table lacks. `sides`: the last two numbers are lengths."""

    image: int
    corners: tuple[int, ...]
    kind: int
    split: int
    crowd: int
    size: tuple[int, int]
    sides: bool = False


class _Table(NamedTuple):
    name: str
    columns: _Columns
    rows: list[list[str]]


def asked(tree: Tree) -> bool:
    """Return whether the table named by the user, as the source or with --labels, has boxes."""
    name = tree.options.labels or tree.table
    return bool(name) and _open(tree, name) is not None


def names(tree: Tree) -> list[str]:
    """Return the tables with boxes; if the user named one, only that."""
    named = tree.options.labels or tree.table
    candidates = [named] if named else [name for name in tree.files if name.lower().endswith(_SUFFIXES)]
    return [name for name in candidates if _open(tree, name) is not None]


def _open(tree: Tree, name: str) -> _Table | None:
    """Return a table with boxes; None for other files."""
    if not name.lower().endswith(_SUFFIXES) or not (name in tree.files or Path(name).is_file()):
        return None
    return _parse(name, tree.read(name) if name in tree.files else Path(name).read_bytes())


@lru_cache(maxsize=8)
def _parse(name: str, data: bytes) -> _Table | None:
    text = data.decode(code_of(data), errors="replace")
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=mark) if any(map(str.strip, row))]
    if not rows:
        return None
    columns = _columns([plain(cell) for cell in rows[0]])
    if columns is not None:
        return _Table(name, columns, rows[1:])
    if (
        len(rows[0]) == len(_BARE)
        and all(map(_is_bare, rows[:_SOME]))
        and any(row[1] for row in rows[:_SOME])
    ):
        return _Table(name, _Columns(0, (1, 2, 3, 4), 5, -1, -1, (-1, -1)), rows)
    return None


def _columns(header: Sequence[str]) -> _Columns | None:
    """Return the places of the columns; None if it has no image or no box."""

    def place(known: Sequence[str]) -> int:
        return next((header.index(one) for one in known if one in header), -1)

    image = place(_IMAGE)
    corners: tuple[str, ...] = next((one for one in _CORNERS if set(one) <= set(header)), ())
    sides = not corners
    if sides:
        corners = next((one for one in _SIDES if set(one) <= set(header)), ())
    if not corners and "bbox" in header:
        corners = ("bbox",)
    if image < 0 or not corners:
        return None
    used = () if "width" in corners else (place(_HEIGHT), place(_WIDTH))
    places = tuple(header.index(one) for one in corners)
    return _Columns(image, places, place(_KIND), place(_SPLIT), place(_CROWD), used or (-1, -1), sides)


def _is_bare(row: Sequence[str]) -> bool:
    """Return whether a row is an image, four numbers and a class, or an image and five empty cells."""
    if len(row) != len(_BARE) or not is_image(row[0].strip()):
        return False
    numbers = [one.strip() for one in row[1:5]]
    return not any(numbers) or (all(map(_is_number, numbers)) and bool(row[5].strip()))


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def read(tree: Tree) -> Drawn:
    """Return the images of all tables with boxes, and notes on rows that name no image."""
    around = replace(Tree.look(tree.root, tree.options), notes=tree.notes) if tree.table else tree
    find = Finder({name: name for name in around.pictures}, around.root)
    found: list[OutlinedImage] = []
    notes: list[str] = []
    for name in names(tree):
        table = _open(tree, name)
        if table is None:
            continue
        shares = _are_shares(table)
        gone: dict[str, None] = {}
        own: dict[str, OutlinedImage] = {}
        for row in table.rows:
            one = _image(around, table, row, find, shares)
            if one.trouble == GONE:
                gone[one.name] = None
            elif one.name in own:
                before = own[one.name]
                before.boxes.extend(one.boxes)
                own[one.name] = before._replace(trouble=before.trouble or one.trouble)
            else:
                own[one.name] = one
        found += own.values()
        if gone:
            notes.append(f"{count(len(gone), 'image')} of {name} not here: {shorten(gone)}.")
        if table.columns.kind < 0:
            notes.append(f"{name} has no column of classes: every box is of the class {ONE_CLASS!r}.")
    return Drawn(found, tuple(notes))


def _image(tree: Tree, table: _Table, row: Sequence[str], find: Finder, shares: bool) -> OutlinedImage:
    """Return the image of a row with its box; the box of a row whose corners are empty is none."""
    columns = table.columns
    said = _cell(row, columns.image)
    split = split_of(_cell(row, columns.split)) or ("" if columns.split >= 0 else split_in(table.name))
    path, trouble = find(said, folder_of(table.name), split)
    if trouble or path not in tree.files:
        return OutlinedImage(said, split, [], trouble or GONE)
    if not any(_cell(row, place) for place in columns.corners):
        return OutlinedImage(path, split, [])
    numbers = _numbers(row, columns)
    if numbers is None:
        cells = ", ".join(_cell(row, place) for place in columns.corners)
        return OutlinedImage(
            path, split, [], f"has a box in {table.name} that is not four numbers ({cells[:60]})"
        )
    if shares:
        height, width = upright_size(tree, path)
        numbers = tuple(n * side for n, side in zip(numbers, (width, height) * 2, strict=True))
    kind = _cell(row, columns.kind) if columns.kind >= 0 else ONE_CLASS
    if not kind:
        return OutlinedImage(path, split, [], f"has a box without a class in {table.name}")
    crowd = _cell(row, columns.crowd).casefold() in {"1", "true", "yes"}
    left, top, right, bottom = numbers
    box = Box(kind, (left, top, right, bottom), {"crowd": True} if crowd else {})
    return OutlinedImage(path, split, [box], "", _size(row, columns))


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if 0 <= place < len(row) else ""


def _size(row: Sequence[str], columns: _Columns) -> tuple[int, int]:
    height, width = (_cell(row, place) for place in columns.size)
    return (int(height), int(width)) if height.isdigit() and width.isdigit() else (0, 0)


def _numbers(row: Sequence[str], columns: _Columns) -> tuple[float, ...] | None:
    """Return (left, top, right, bottom); None if these are no four numbers."""
    cells = [_cell(row, place) for place in columns.corners]
    sides = columns.sides
    if len(cells) == 1:  # a list in one cell: Kaggle writes corner and sides
        cells, sides = _listed(cells[0]), True
    if len(cells) != 4 or not all(map(_is_number, cells)):
        return None
    left, top, third, fourth = map(float, cells)
    return (left, top, left + third, top + fourth) if sides else (left, top, third, fourth)


def _listed(cell: str) -> list[str]:
    try:
        return [str(one) for one in json.loads(cell)]
    except (ValueError, TypeError):
        return []


def _are_shares(table: _Table) -> bool:
    """Return whether all corners are shares of the image from 0 to 1, as OpenImages writes them."""
    known = [numbers for row in table.rows if (numbers := _numbers(row, table.columns)) is not None]
    return bool(known) and max(map(max, known)) <= 1 and any(number % 1 for one in known for number in one)
