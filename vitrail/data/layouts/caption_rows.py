"""Rows of captions: those of one image become one row with several captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vitrail.data.captions import join_captions, split_captions
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.base import Entry

_HELD_OUT = ("train", "val", "test")


def merge_captions(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return one entry for each image, with all of its captions, and notes on what was merged."""
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.path, []).append(entry)
    notes = Counter[str]()
    merged = []
    for rows in by_path.values():
        one = rows[0]
        if len(rows) > 1:
            every = [caption for row in rows for caption in split_captions(row.target)]
            one = one._replace(target=join_captions(every))
            notes["in several rows: each has the captions of all of them"] += 1
        splits = {row.split for row in rows} - {""}
        if len(splits) > 1:  # test images must not be used for training
            one = one._replace(split=max(splits, key=_HELD_OUT.index))
            notes["in two splits at once: they score and do not train"] += 1
        merged.append(one)
    return merged, [f"{count(number, 'image')} {note}." for note, number in notes.items()]


def say_columns(columns: Sequence[str]) -> str:
    """Return where the captions of a table stand, for the reason of a layout."""
    return f"the captions in {shorten(map(repr, columns))}"
