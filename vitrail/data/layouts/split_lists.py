"""Read splits and groups from separate lists: a split.csv beside class folders, train.txt and test.txt."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.labels import count, shorten, splits_of
from vitrail.data.layouts.base import Layout, Tree
from vitrail.data.layouts.table import image_column
from vitrail.data.table_files import code_of, group_column, is_table, read_table, split_column

_DRAW = re.compile(r"(?P<kind>(?:.*/)?(?:train|val|test)list_?)(?P<number>\d+)\.txt", re.IGNORECASE)
_LISTS = (".txt", ".csv", ".lst")


class _Said(NamedTuple):
    """The content of a list: path → split, and path → group; either may be empty."""

    splits: dict[str, str]
    groups: dict[str, str]


def with_lists(tree: Tree, layout: Layout) -> Layout:
    """Return a layout with splits and groups from lists, for images without their own."""
    if tree.table:
        return layout
    paths = {entry.path for entry in layout.found if not entry.trouble}
    find = Finder({name: path for name, path in tree.files.items() if path in paths}, tree.root)
    splits: dict[str, str] = {}
    groups: dict[str, str] = {}
    used: list[str] = []
    later = _other_draws(tree)
    for name in (one for one in tree.files if one not in layout.tables and one not in later):
        found = _in_table(tree, name, find) or _in_list(tree, name, find)
        if found is None:
            continue
        splits.update(found.splits)
        groups.update(found.groups)
        used += [name]
    if (
        tree.options.splits == "none"
        or "train" not in splits.values()
        or any(one.split for one in layout.found)
    ):
        splits = {}
    if any(one.group for one in layout.found):
        groups = {}
    if not splits and not groups:
        return layout
    entries = tuple(
        one._replace(split=splits.get(one.path, one.split), group=groups.get(one.path, one.group))
        for one in layout.found
    )
    notes = [*_notes(paths, splits, groups, used), *_unused(later if splits else [])]
    return replace(layout, found=entries, notes=(*layout.notes, *notes))


def _other_draws(tree: Tree) -> list[str]:
    """Return the lists of other draws of the split: trainlist02.txt and 03 beside trainlist01.txt."""
    draws: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in tree.files:
        if match := _DRAW.fullmatch(name):
            draws[match["kind"].casefold()].append((int(match["number"]), name))
    return [name for lists in draws.values() for _, name in sorted(lists)[1:]]


def _unused(lists: list[str]) -> list[str]:
    if not lists:
        return []
    return [f"{shorten(lists)} left aside: other draws of the split. To take one, remove those before it."]


def _notes(paths: set[str], splits: dict[str, str], groups: dict[str, str], used: list[str]) -> list[str]:
    notes = []
    for what, said in (("split", splits), ("group", groups)):
        if said:
            rest = len(paths - said.keys())
            left = f" {count(rest, 'image')} that are not named there have none." if rest else ""
            notes.append(f"The {what} of {count(len(said), 'image')} stands in {shorten(used)}.{left}")
    return notes


def _in_table(tree: Tree, name: str, find: Finder) -> _Said | None:
    """Return the content of a table with a column of images and one of splits or groups."""
    if not is_table(name) or name.lower().endswith((".txt", ".json")):
        return None
    try:
        frame = read_table(name, tree.read(name))
        column, words = split_column(frame, tree.options)
        tied = group_column(frame, tree.options)
    except DataError:
        return None
    if not column and not tied:
        return None
    base = folder_of(name)
    frame, path, reached, trouble = image_column(frame, tree, name, find)
    if not reached or trouble or path in {column, tied}:
        return None
    places = [find(cell, base) for cell in frame[path].to_list()]
    splits = (
        [words.get(cell.strip().casefold(), "") for cell in frame[column]] if column else [""] * len(places)
    )
    groups = [cell.strip() for cell in frame[tied]] if tied else [""] * len(places)
    right = [place for place, trouble in places if not trouble]
    kept = [i for i, (_, trouble) in enumerate(places) if not trouble]
    return _Said(
        {place: splits[i] for place, i in zip(right, kept, strict=True) if splits[i]},
        {place: groups[i] for place, i in zip(right, kept, strict=True) if groups[i]},
    )


def _in_list(tree: Tree, name: str, find: Finder) -> _Said | None:
    """Return the content of a list of names whose file name is that of a split."""
    if not name.lower().endswith(_LISTS):
        return None
    stem = PurePosixPath(name).stem
    parts = [part for part in re.split(r"[_\W]+", stem) if part]
    splits = set(splits_of(parts).values()) or ({"train", "val"} if "trainval" in stem.casefold() else set())
    if not splits or (len(splits) > 1 and splits != {"train", "val"}):
        return None
    data = tree.read(name)
    lines = [line.strip() for line in data.decode(code_of(data), errors="replace").splitlines()]
    cells = [line for line in lines if line]
    base = folder_of(name)
    if not cells:
        return None
    if 2 * find.meant(cells[:200], base)[0] < len(cells[:200]):
        cells = [cell.split()[0] for cell in cells]  # an image, and what else is said of it
        if 2 * find.meant(cells[:200], base)[0] < len(cells[:200]):
            return None
    split = "train" if "train" in splits else splits.pop()
    return _Said({path: split for cell in cells for path, wrong in [find(cell, base)] if not wrong}, {})
