"""Decides what the values of masks mean: by a table of the source, by a known palette, or by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.mask_files import SHARPEN, VOID, Seen, hexed
from vitrail.data.layouts.mask_tables import BACKGROUND, FOREGROUND, Colour, Kind, Table
from vitrail.data.truth import Truth

_INSTANCES = 40
"""Masks without a table and with more values than this contain objects, not classes."""

_COUNTING = 4
"""Masks whose numbers count from 1, to so many different ends, of which half are this or more, contain objects."""

_MOST_COLOURS = 64

_BLURRED = 0.95
"""Masks without a table and with at least this share of pixels 0 or 255 have two classes, with blurred edges."""

_GREYS = 16

_DWARFS = 10
"""So do those that hold so many numbers between 0 and 255, each on a tenth of the pixels of 255 at most."""


class Header(NamedTuple):
    """The header of the truths, notes on assumptions, and whether the values are those of objects.

    `guessed` means that no table says that they are those of classes. `refusal` is the reason, as a sentence, why it
    names no class.
    """

    truth: Truth
    notes: tuple[str, ...] = ()
    objects: bool = False
    refusal: str = ""
    guessed: bool = False


def decide_header(table: Table | None, seen: Seen, known: Table | None = None) -> Header:
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
    if len(counted) == 1 and len(values - {0, VOID}) > 1 and not seen.colours:
        name = counted[0].name
        line = (
            f"{table.file} names {name} alone, and the masks hold {count(len(values - {0}), 'number')}: they tell "
            f"objects apart, and what is not 0 is {name}."
        )
        return Header(Truth("mask", (BACKGROUND, name)), (line,), objects=True)
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
    if len(inner) > _INSTANCES or _is_numbered(seen):
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
    return Header(Truth("mask", names, palette, None, values=stated), (line,), guessed=True)


def _is_numbered(seen: Seen) -> bool:
    """Return whether the numbers of every mask count its objects: from 1 without a gap, to another end each time."""
    ends = [end for end in seen.ends if end]
    return (
        len(ends) >= _COUNTING
        and all(end > 0 for end in ends)
        and len(set(ends)) >= _COUNTING
        and 2 * sum(end >= _COUNTING for end in ends) >= len(ends)
    )


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
    return Header(Truth("mask", names, colours), (line,), guessed=True)
