"""The meaning of mask values and colours, from tables beside them, lists of known sets, or the masks themselves."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vitrail.data.labels import label
from vitrail.data.layouts.base import Tree
from vitrail.data.table_files import code_of, plain

Colour = tuple[int, int, int]

BACKGROUND, FOREGROUND = "background", "foreground"

_VOID_NAMES = frozenset((
    "void", "unlabeled", "unlabelled", "unknown", "ignore", "ignored", "ignoreregion", "dontcare", "donotcare",
    "undefined", "unclassified", "notclassified", "nodata", "outofroi",
))  # fmt: skip
"""Names of void classes, in lower case and only with letters."""

GROUNDS = frozenset(("background", "bg", "ground", "back"))
"""Names of the background class, in lower case."""

_FILE_WORDS = frozenset((
    "class", "classes", "label", "labels", "category", "categories", "color", "colors", "colour", "colours", "palette",
    "name", "names", "dict", "map", "codes", "info", "legend", "object", "mask", "masks", "labelmap", "classnames",
    "labelnames", "objectinfo", "colormap", "dataset", "meta", "config", "list", "rgb", "id", "ids", "to",
))  # fmt: skip
"""Words in the file names of class tables."""


class Kind(NamedTuple):
    """A class in a table."""

    name: str
    value: int | None = None
    colour: Colour | None = None

    @property
    def is_void(self) -> bool:
        """Whether its name is that of a void class."""
        return plain(self.name) in _VOID_NAMES


class Table(NamedTuple):
    """The classes of a file, or of a well-known list, in its order."""

    file: str
    kinds: tuple[Kind, ...]
    path: str = ""
    lines: tuple[int, ...] = ()  # of each class, from 1, where they are known

    def line(self, place: int) -> str:
        """Return the position of a class in the file, for a message."""
        return f"line {self.lines[place]} of {self.file}" if self.lines else self.file

    @property
    def coloured(self) -> bool:
        """Whether the table contains colours."""
        return all(kind.colour is not None for kind in self.kinds if not kind.is_void)


def tables(tree: Tree) -> list[Table]:
    """Return the tables of classes among the files of a source, those with colours first."""
    found = []
    for name in tree.files:
        if _may_be_table(name) and (kinds := _kinds(name, tree.read(name))):
            lines = _lines_of(kinds, tree.read(name))
            found.append(Table(PurePosixPath(name).name, kinds, name, lines))
    return sorted(found, key=lambda one: not one.coloured)


def _lines_of(kinds: Sequence[Kind], data: bytes) -> tuple[int, ...]:
    """Return the line number of each class in a file with one class per line; empty for other files."""
    lines = enumerate(data.decode(code_of(data), errors="replace").splitlines(), 1)
    found = [next((number for number, line in lines if kind.name in line), 0) for kind in kinds]
    return tuple(found) if all(found) else ()


def _may_be_table(name: str) -> bool:
    stem, _, suffix = name.rpartition("/")[2].lower().rpartition(".")
    words = re.findall(r"[a-z]+", stem)
    return suffix in {"txt", "csv", "tsv", "json", "names"} and bool(words) and set(words) <= _FILE_WORDS


def _kinds(name: str, data: bytes) -> tuple[Kind, ...]:
    if len(data) > 1 << 20:
        return ()
    text = data.decode(code_of(data), errors="replace")
    if name.lower().endswith(".json"):
        try:
            found = list(_of_json(json.loads(text)))
        except ValueError:
            return ()
    else:
        found = _of_columns(text) or _of_lines(text)
    names = [kind.name for kind in found]
    return tuple(found) if len(set(names)) == len(names) else ()


def _of_json(content: Any) -> Iterator[Kind]:
    """Read names, names by value, values or colours by name, or records of them; empty for other content."""
    if isinstance(content, dict):
        for key in ("labels", "classes", "categories", "names"):
            if isinstance(content.get(key), list | dict):
                yield from _of_json(content[key])
                return
        for key, value in content.items():
            if isinstance(value, str) and key.isdigit():
                yield Kind(label(value), int(key))
            elif isinstance(value, int):
                yield Kind(label(key), value)
            elif colour := _colour(value):
                yield Kind(label(key), None, colour)
    elif isinstance(content, list):
        for one in content:
            if isinstance(one, str):
                yield Kind(label(one))
            elif isinstance(one, dict):
                yield from _of_record(one)


def _of_record(one: Mapping[str, Any]) -> Iterator[Kind]:
    name = next((one[key] for key in ("readable", "name", "title", "label", "class") if key in one), None)
    value = next(
        (one[key] for key in ("trainId", "id", "value", "index") if isinstance(one.get(key), int)), None
    )
    colour = next((_colour(one[key]) for key in ("color", "colour", "rgb") if key in one), None)
    if isinstance(name, str):
        yield Kind(label(name), value, colour)


def _colour(value: Any) -> Colour | None:
    if isinstance(value, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        number = int(value.lstrip("#"), 16)
        return number >> 16, number >> 8 & 255, number & 255
    if isinstance(value, list) and len(value) in (3, 4) and all(isinstance(one, int) for one in value):
        return int(value[0]), int(value[1]), int(value[2])
    return None


_NAME = ("name", "class", "classname", "label", "labelname", "category", "categoryname", "title")
_VALUE = ("idx", "index", "id", "value", "classid", "labelid", "categoryid", "pixel", "pixelvalue")


def _of_columns(text: str) -> list[Kind]:
    """Read a table with a header: a column of names, and columns of values or of red, green and blue."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = next((mark for mark in ("\t", ",", ";") if lines and mark in lines[0]), "")
    if not mark or len(lines) > 1000:
        return []
    head, *rows = csv.reader(StringIO("\n".join(lines)), delimiter=mark, skipinitialspace=True)
    by_name = {plain(cell): place for place, cell in enumerate(head)}
    name = next((by_name[key] for key in _NAME if key in by_name), None)
    value = next((by_name[key] for key in _VALUE if key in by_name), None)
    parts = [
        [by_name[key] for key in triple if key in by_name]
        for triple in (("r", "g", "b"), ("red", "green", "blue"))
    ]
    colour = next((part for part in parts if len(part) == 3), None)
    if name is None or (value is None and colour is None):
        return []
    try:
        return [
            Kind(
                label(row[name]),
                None if value is None else int(row[value]),
                None if colour is None else (int(row[colour[0]]), int(row[colour[1]]), int(row[colour[2]])),
            )
            for row in rows
        ]
    except (ValueError, IndexError):
        return []


_BYTE = r"(\d{1,3})"
_GAP = r"[\s,;:]+"
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Kind]], ...] = (
    (
        re.compile(rf"(\d+){_GAP}(\D.*?){_GAP}{_BYTE}{_GAP}{_BYTE}{_GAP}{_BYTE}[,;:\s]*"),
        lambda m: Kind(label(m[2]), int(m[1]), (int(m[3]), int(m[4]), int(m[5]))),
    ),
    (
        re.compile(rf"{_BYTE}{_GAP}{_BYTE}{_GAP}{_BYTE}{_GAP}(\D.*)"),
        lambda m: Kind(label(m[4]), None, (int(m[1]), int(m[2]), int(m[3]))),
    ),
    (
        re.compile(rf"(.*\D){_GAP}{_BYTE}{_GAP}{_BYTE}{_GAP}{_BYTE}[,;:\s]*"),
        lambda m: Kind(label(m[1]).rstrip(" ,;:"), None, (int(m[2]), int(m[3]), int(m[4]))),
    ),
    (
        re.compile(rf"(.+?){_GAP}(#[0-9a-fA-F]{{6}})"),
        lambda m: Kind(label(m[1]), None, _colour(m[2])),
    ),
    (re.compile(rf"(\d+){_GAP}(\D.*)"), lambda m: Kind(label(m[2]), int(m[1]))),
    (re.compile(r"(.*\D)[\s,;:=]+(\d+)"), lambda m: Kind(label(m[1]).rstrip(" ,;:="), int(m[2]))),
    (re.compile(r"(.*[^\W\d_].*)"), lambda m: Kind(label(m[1]))),
)
"""Formats of a line: 3 road 128 64 128; 128 64 128 road; road 128 64 128; road #804080; 3 road; road 3."""


def _of_lines(text: str) -> list[Kind]:
    """Read a list in which all lines have the same format; empty for other lists."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    if not 1 <= len(lines) <= 1000:
        return []
    for rule, made in _RULES:
        found = [made(match) for line in lines if (match := rule.fullmatch(line)) is not None]
        right = sum(max(kind.colour or (0,)) <= 255 for kind in found)
        if len({kind.name for kind in found}) == len(lines) and 2 * right > len(lines):
            return found
    return []
