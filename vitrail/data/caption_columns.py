"""Which columns of a table hold captions of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitrail.data.captions import NAMES, WEAK_NAMES, are_captions
from vitrail.data.labels import natural

if TYPE_CHECKING:
    import polars as pl


def is_caption_name(name: str) -> bool:
    """Return whether a column is called like captions; `name` is in lower case, letters and digits only."""
    return name.rstrip("0123456789") in (*NAMES, *WEAK_NAMES)


def caption_columns(frame: pl.DataFrame, by_name: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns that hold captions by their name and their texts; () if there are none.

    Several columns count only if they differ in a number: caption_1, caption_2. `by_name` are the columns that may hold
    captions, by their names in lower case.
    """
    for family in _families(by_name, NAMES) + _families(by_name, WEAK_NAMES):
        right = [column for column in family if are_captions(frame[column].to_list(), named=True)]
        if right:
            # Where the first captions are right, further ones may be missing for most of the images.
            return tuple(column for column in family if column in right or _says_something(frame[column]))
    return ()


def is_sure(columns: Sequence[str], by_name: Mapping[str, str]) -> bool:
    """Return whether the names of columns can mean nothing but captions."""
    own = {column: name for name, column in by_name.items()}
    return bool(columns) and own[columns[0]].rstrip("0123456789") in NAMES


def prose_columns(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns whose texts are captions, whatever they are called."""
    return [column for column in columns if are_captions(frame[column].to_list(), named=False)]


def likeliest(frame: pl.DataFrame, by_name: Mapping[str, str], others: Sequence[str]) -> tuple[str, ...]:
    """Return the columns to take if captions are wanted: by content, by name, or one of `others`."""
    if found := caption_columns(frame, by_name):
        return found
    if found := tuple(prose_columns(frame, list(by_name.values())))[:1]:
        return found
    for family in _families(by_name, NAMES) + _families(by_name, WEAK_NAMES):
        if filled := tuple(column for column in family if _says_something(frame[column])):
            return filled
    return tuple(column for column in others if _has_letters(frame[column]))[:1]


def _families(by_name: Mapping[str, str], names: Sequence[str]) -> list[list[str]]:
    """Return, for each of these names that occurs, its columns: the name alone and with numbers."""
    found = []
    for name in names:
        own = [column for key, column in by_name.items() if key.rstrip("0123456789") == name]
        if own:
            found.append(sorted(own, key=natural))
    return found


def _says_something(column: pl.Series) -> bool:
    return any(cell.strip() for cell in column)


def _has_letters(column: pl.Series) -> bool:
    return any(any(sign.isalpha() for sign in cell) for cell in column)
