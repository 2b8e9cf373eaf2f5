"""The meaning of mask values and colours, from tables beside them, lists of known sets, or the masks themselves."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.labels import count, label, shorten
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.mask_files import SHARPEN, VOID, Seen, hexed
from vitrail.data.table_files import code_of, plain
from vitrail.data.truth import Truth

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

_INSTANCES = 40
"""Masks without a table and with more values than this contain objects, not classes."""

_MOST_COLOURS = 64
_BLURRED = 0.95
"""Masks without a table and with at least this share of pixels 0 or 255 have two classes, with blurred edges."""

_GREYS = 16
_DWARFS = 10
"""So do those that hold so many numbers between 0 and 255, each on a tenth of the pixels of 255 at most."""


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


class Header(NamedTuple):
    """The header of the truths, notes on assumptions, and whether the values are those of objects.

    `refusal` is the reason, as a sentence, why it names no class.
    """

    truth: Truth
    notes: tuple[str, ...] = ()
    objects: bool = False
    refusal: str = ""


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


def header(table: Table | None, seen: Seen, known: Table | None = None) -> Header:
    """Return the header of masks, from a table beside them, else from known sets, else from the masks themselves.

    Raises:
        DataError: the masks have too many colours to be classes; the message is a predicate of the source.
    """
    if table is not None:
        _refuse_wrong(table, seen)
        return _by_table(table, seen)
    return _by_table(known, seen) if known is not None else _untold(seen)


def _refuse_wrong(table: Table, seen: Seen) -> None:
    """Raise DataError for a table with an invalid colour, or with the same value or colour twice."""
    first: dict[Any, str] = {}
    for place, kind in enumerate(table.kinds):
        if kind.colour is not None and max(kind.colour) > VOID:
            shown = " ".join(map(str, kind.colour))
            raise DataError(
                f"has the colour {shown} of {kind.name} in {table.line(place)}, and {max(kind.colour)} is above 255. "
                "Write three numbers from 0 to 255."
            )
        what = kind.colour if seen.colours else kind.value
        if what is None or what == VOID or (isinstance(what, int) and what < 0):
            continue  # Cityscapes uses 255 or -1 for all void classes
        if (other := first.setdefault(what, kind.name)) != kind.name and not kind.is_void:
            shown = " ".join(map(str, what)) if isinstance(what, tuple) else str(what)
            raise DataError(
                f"has the {'colour' if seen.colours else 'number'} {shown} twice in {table.file}: of {other}, and of "
                f"{kind.name} in {table.line(place)}. Give each class its own."
            )


def _by_table(table: Table, seen: Seen) -> Header:
    kinds = [one._replace(value=i if one.value is None else one.value) for i, one in enumerate(table.kinds)]
    counted = [one for one in kinds if not one.is_void]
    values = set(seen.values)
    if VOID in values and values <= {0, VOID} and len(counted) in (1, 2):
        names = tuple(one.name for one in counted)
        return _two((BACKGROUND, *names) if len(names) == 1 else names, (0, VOID))
    if len(counted) == 1:
        other = next((value for value in sorted(values - {0})), 1)
        return _two((BACKGROUND, counted[0].name), (0, other))
    if len(counted) == 0:
        raise DataError(f"names no class in {table.file}. Write one a line.")
    return _of_kinds(table, kinds, seen)


def _of_kinds(table: Table, kinds: Sequence[Kind], seen: Seen) -> Header:
    """Put void entries after the classes, including values that occur in masks but not in the table."""
    _refuse_from_one(table, seen)
    counted, void = ([one for one in kinds if one.is_void is kind] for kind in (False, True))
    nowhere = dict.fromkeys(one.name for one in void)
    notes = [f"{shorten(nowhere)} of {table.file}: counts nowhere."] if void else []
    values = [one.value for one in counted if one.value is not None]
    beyond = [one.value for one in void if one.value not in (None, VOID)]
    known = {*values, *beyond, VOID}
    total = max(1, sum(seen.values.values()))
    if not seen.colours:
        for value in (max(values) + 1, 0):
            if value in seen.values and value not in known:
                share = seen.values[value] / total
                notes.append(
                    f"The value {value} has no name in {table.file}: it is taken for void ({share:.1%} of the pixels)."
                )
                beyond.append(value)
    colours: list[Colour] = []
    if table.coloured:
        colours = [one.colour for one in (*counted, *void) if one.colour is not None]
        black = seen.colours.get((0, 0, 0), 0)
        if black and (0, 0, 0) not in colours:
            share = black / max(1, sum(seen.colours.values()))
            notes.append(
                f"Black has no name in {table.file}: it is taken for void ({share:.1%} of the pixels)."
            )
            colours.append((0, 0, 0))
    elif seen.colours:
        raise DataError(
            f"holds masks in colours ({_shown(seen.colours)}), and {table.file} names no colours. Write a colour "
            "behind each name: road 128 64 128."
        )
    elif len(seen.palette) > max(values):
        colours = [seen.palette[value] for value in values]
    plain_order = values == list(range(len(values))) and not beyond
    names = tuple(one.name for one in counted)
    stated = () if plain_order else (*values, *beyond)
    return Header(Truth("mask", names, tuple(colours), None, values=stated), tuple(notes))


def _refuse_from_one(table: Table, seen: Seen) -> None:
    """Raise DataError for masks that count from 1 with names that count from 0: all classes would be shifted."""
    many = len(table.kinds)
    inner = set(seen.values) - {VOID}
    if seen.colours or not inner or any(kind.value is not None for kind in table.kinds):
        return
    if min(inner) == 1 and max(inner) == many:
        ways = shorten(f"`{number} {kind.name}`" for number, kind in enumerate(table.kinds, 1))
        raise DataError(
            f"holds masks whose numbers begin at 1 and end at {many}, and {table.file} names "
            f"{count(many, 'class', 'classes')} without numbers, which count from 0. Write the number before each "
            f"name: {ways}."
        )


def _shown(colours: Counter[Colour]) -> str:
    total = max(1, sum(colours.values()))
    return shorten(f"{hexed(colour)} {pixels / total:.0%}" for colour, pixels in colours.most_common())


def _two(names: tuple[str, ...], values: tuple[int, int], more: str = "") -> Header:
    first, second = names
    line = f"The masks hold {values[0]} and {values[1]} alone: two classes, {first} and {second}."
    stated = () if values == (0, 1) else values
    return Header(Truth("mask", names, (), None, values=stated), (more or line,))


def _untold(seen: Seen) -> Header:
    """Return the header from the masks alone, without a table."""
    if seen.colours:
        return _colours_as_classes(seen)
    values = sorted(seen.values)
    total = max(1, sum(seen.values.values()))
    ends = seen.values[0] + seen.values[VOID]
    two = (BACKGROUND, FOREGROUND)
    if set(values) <= {0, VOID} and VOID in values:
        return _two(two, (0, VOID))
    if seen.values[VOID] and len(values) > 3 and (ends >= _BLURRED * total or _is_smoothed(seen)):
        line = (
            f"{ends / total:.0%} of the pixels of the masks are 0 or 255: two classes, background and foreground. What "
            f"lies between are smoothed edges, and of no class. {SHARPEN}"
        )
        return _two(two, (0, VOID), line)
    if set(values) <= {0, 1}:
        return _two(two, (0, 1)) if values else Header(Truth("mask", two))
    inner = [value for value in values if value != VOID]
    if len(inner) > _INSTANCES:
        line = (
            f"The masks hold {count(len(inner), 'number')} and no table names them: they tell objects apart, and "
            "what is not 0 is taken for foreground. To take each for a class, name them in classes.txt."
        )
        return Header(Truth("mask", two), (line,), objects=True)
    if inner == list(range(len(inner))):
        stated: tuple[int, ...] = ()
    else:
        stated = tuple(inner)
    names = tuple(f"class {value}" for value in inner)
    line = f"No table names the classes of the masks: called {shorten(names)}. Name them in classes.txt, one a line."
    palette = tuple(seen.palette[value] for value in inner) if inner and len(seen.palette) > inner[-1] else ()
    return Header(Truth("mask", names, palette, None, values=stated), (line,))


def _is_smoothed(seen: Seen) -> bool:
    """Return whether values between 0 and 255 are smoothed edges, not objects or classes.

    Values of smoothed edges are many, each is rare, and they are around the middle; objects count from 1.
    """
    inner = {value: pixels for value, pixels in seen.values.items() if value not in (0, VOID)}
    if len(inner) < _GREYS or max(inner) > VOID or min(inner) < 0:
        return False
    middle = sum(value * pixels for value, pixels in inner.items()) / sum(inner.values())
    return seen.values[VOID] >= _DWARFS * max(inner.values()) and VOID / 4 <= middle <= 3 * VOID / 4


def _colours_as_classes(seen: Seen) -> Header:
    if len(seen.colours) > _MOST_COLOURS:
        raise DataError(
            f"holds masks in {len(seen.colours):,} colours or more ({_shown(seen.colours)}), too many to be classes. "
            "Save them without loss, as PNG, and say what the colours mean in classes.txt: road 128 64 128."
        )
    colours = tuple(sorted(seen.colours))
    names = tuple(hexed(colour) for colour in colours)
    line = (
        f"No table names the colours of the masks: each is a class ({_shown(seen.colours)}). Name them in classes.txt, "
        "one a line: road 128 64 128; those called void count nowhere."
    )
    return Header(Truth("mask", names, colours), (line,))


def known(words: frozenset[str], seen: Seen) -> Table | None:
    """Return the classes of well-known sets without a table, by the names of their folders and their values."""
    if words & {"gtfine", "gtcoarse"}:
        return _CITYSCAPES
    if words & {"trimaps", "trimap"} and set(seen.values) <= {1, 2, 3}:
        return _PETS
    of_voc = any(word.startswith("segmentationclass") for word in words)
    table = _voc_palette()
    fits = set(seen.colours) <= {*table[:21], _VOC_RIM} and set(seen.values) <= {*range(21), VOID}
    own = not seen.palette or seen.palette[:21] == table[:21]
    return _voc() if of_voc and fits and own and (seen.colours or seen.palette) else None


_VOC_RIM = (224, 224, 192)
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _voc_palette() -> tuple[Colour, ...]:
    """Return the colours of Pascal VOC: the bits of a number, three by three, from the highest of each colour down."""

    def part(value: int, bit: int) -> int:
        return sum((value >> (3 * i + bit) & 1) << (7 - i) for i in range(8))

    return tuple((part(value, 0), part(value, 1), part(value, 2)) for value in range(256))


def _voc() -> Table:
    kinds = [
        Kind(name, i, colour) for i, (name, colour) in enumerate(zip(_VOC, _voc_palette(), strict=False))
    ]
    return Table("Pascal VOC", (*kinds, Kind("void", VOID, _VOC_RIM)))


_PETS = Table("Oxford-IIIT Pet", (Kind("pet", 1), Kind("background", 2), Kind("not classified", 3)))

_CITYSCAPES = Table(
    "Cityscapes",
    (
        Kind("road", 7, (128, 64, 128)), Kind("sidewalk", 8, (244, 35, 232)), Kind("building", 11, (70, 70, 70)),
        Kind("wall", 12, (102, 102, 156)), Kind("fence", 13, (190, 153, 153)), Kind("pole", 17, (153, 153, 153)),
        Kind("traffic light", 19, (250, 170, 30)), Kind("traffic sign", 20, (220, 220, 0)),
        Kind("vegetation", 21, (107, 142, 35)), Kind("terrain", 22, (152, 251, 152)),
        Kind("sky", 23, (70, 130, 180)), Kind("person", 24, (220, 20, 60)), Kind("rider", 25, (255, 0, 0)),
        Kind("car", 26, (0, 0, 142)), Kind("truck", 27, (0, 0, 70)), Kind("bus", 28, (0, 60, 100)),
        Kind("train", 31, (0, 80, 100)), Kind("motorcycle", 32, (0, 0, 230)), Kind("bicycle", 33, (119, 11, 32)),
        *(Kind("void", value) for value in (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)),
    ),
)  # fmt: skip
