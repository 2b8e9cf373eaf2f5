"""Splits that stand in lists of their own: a split.csv beside class folders, train.txt and test.txt."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

from vitrail.core.errors import DataError
from vitrail.data.find import Finder
from vitrail.data.layouts.base import Layout, Tree
from vitrail.data.layouts.table import column_of_pictures
from vitrail.data.names import count, some, splits_of
from vitrail.data.tables import code_of, is_table, read_table, split_column

_LISTS = (".txt", ".csv", ".lst")


def with_listed_splits(tree: Tree, layout: Layout) -> Layout:
    """Return a layout whose pictures have the splits that lists beside them say, where they have none of their own."""
    if tree.options.splits == "none" or tree.table or any(entry.split for entry in layout.found):
        return layout
    paths = {entry.path for entry in layout.found if not entry.trouble}
    find = Finder({name: path for name, path in tree.files.items() if path in paths}, tree.root)
    said: dict[str, str] = {}
    names = []
    for name in tree.files:
        if name not in layout.tables and (found := _in_table(tree, name, find) or _in_list(tree, name, find)):
            said.update(found)
            names.append(name)
    if not {"train"} & set(said.values()):
        return layout
    entries = tuple(entry._replace(split=said.get(entry.path, "")) for entry in layout.found)
    rest = len(paths - said.keys())
    left = f" {count(rest, 'picture')} that they do not name stay without one." if rest else ""
    note = f"The split of {count(len(said), 'picture')} stands in {some(names)}.{left}"
    return replace(layout, found=entries, notes=(*layout.notes, note))


def _in_table(tree: Tree, name: str, find: Finder) -> dict[str, str]:
    """Return path → split by a table with a column of pictures and one of splits."""
    if not is_table(name) or name.lower().endswith(".txt"):
        return {}
    try:
        frame = read_table(name, tree.read(name))
        column, words = split_column(frame, tree.options)
    except DataError:
        return {}
    if not column:
        return {}
    base = name.rpartition("/")[0]
    frame, path, reached, trouble = column_of_pictures(frame, tree, f"{base}/" if base else "", find)
    if not reached or trouble or path == column:
        return {}
    rows = zip(frame[path].to_list(), frame[column].to_list(), strict=True)
    found = ((find(cell, base), words.get(split.strip().casefold(), "")) for cell, split in rows)
    return {where: split for (where, wrong), split in found if split and not wrong}


def _in_list(tree: Tree, name: str, find: Finder) -> dict[str, str]:
    """Return path → split by a list of names whose own name says which split they are of."""
    if not name.lower().endswith(_LISTS):
        return {}
    stem = PurePosixPath(name).stem
    parts = [part for part in re.split(r"[_\W]+", stem) if part]
    splits = set(splits_of(parts).values()) or ({"train", "val"} if "trainval" in stem.casefold() else set())
    if not splits or (len(splits) > 1 and splits != {"train", "val"}):
        return {}
    data = tree.read(name)
    lines = [line.strip() for line in data.decode(code_of(data), errors="replace").splitlines()]
    cells = [line for line in lines if line]
    base = name.rpartition("/")[0]
    if not cells:
        return {}
    if 2 * find.meant(cells[:200], base)[0] < len(cells[:200]):
        cells = [cell.split()[0] for cell in cells]  # a picture, and what else is said of it
        if 2 * find.meant(cells[:200], base)[0] < len(cells[:200]):
            return {}
    split = "train" if "train" in splits else splits.pop()
    return {path: split for cell in cells for path, wrong in [find(cell, base)] if not wrong}
