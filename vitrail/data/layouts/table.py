"""A table beside the pictures: a CSV, TSV, JSON lines, Parquet or Excel file of pictures and labels."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import polars as pl

from vitrail.core.errors import DataError
from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of
from vitrail.data.names import count, is_picture, join_labels, natural, some, split_labels, split_of
from vitrail.data.tables import SUFFIXES, Columns, code_of, is_table, labels_of, read_table, understand

_CODES = {"utf-8-sig": "", "gb18030": ", read as GBK", "cp1252": ", read as Windows-1252"}

_HELD_OUT = ("train", "val", "test")


class _Table(NamedTuple):
    name: str
    frame: pl.DataFrame
    columns: Columns
    code: str


def look(tree: Tree) -> Layout | None:
    """Join a table's rows to the pictures; None where no table names at least half of its pictures rightly.

    Raises:
        DataError: the table was named as the source but lacks a column or names no existing picture; or it has
            a split that is none.
    """
    tables, aside = _tables(tree)
    if not tables:
        return None
    around = Tree.look(tree.root) if tree.table else tree
    find = _Finder(around)
    entries = [entry for table in tables for entry in _entries(table, find)]
    real = sum(not entry.trouble.startswith("is named") for entry in entries)
    if 2 * real < len(entries) or not real:
        if not tree.table:
            return None
        if not real:
            missing = some((entry.id for entry in entries), 2)
            raise DataError(
                f"None of the pictures that {tree.name} names exists ({missing}). Put it beside them."
            )
    entries, merged = _merge(entries)
    named = {entry.path for entry in entries}
    unnamed = 0 if tree.table else sum(tree.files[name] not in named for name in tree.pictures)
    notes = [
        *tree.notes,
        *merged,
        *(f"{name} left aside: it names no labels of pictures here." for name in aside),
    ]
    if unnamed:
        notes.append(f"{count(unnamed, 'picture')} that no table names left aside.")
    refused = () if tree.table else tree.refused
    return Layout("table", around.root, _why(tables), (*entries, *refused), tuple(notes), truth_of(entries))


def _tables(tree: Tree) -> tuple[list[_Table], list[str]]:
    names = [tree.table] if tree.table else [name for name in tree.files if _candidate(name)]
    found, aside = [], []
    for name in names:
        if not is_table(name):
            continue
        try:
            data = tree.read(name)
            frame = read_table(name, data)
        except DataError:
            if tree.table:
                raise
            aside.append(name)
            continue
        columns = understand(frame)
        if columns is None and tree.table:
            raise DataError(
                f"{name} has the columns {', '.join(frame.columns)}; one of pictures (image) and one of labels (label) "
                "are needed. Rename them."
            )
        if columns is None:
            aside.append(name)
        else:
            code = _CODES[code_of(data)] if name.lower().endswith((".csv", ".tsv", ".txt")) else ""
            found.append(_Table(name, frame, columns, code))
    return found, aside


def _candidate(name: str) -> bool:
    """Tell a table that may hold labels; text files and what one hands in at a contest are none."""
    file = name.rsplit("/", 1)[-1].lower()
    return file.endswith(SUFFIXES) and not file.endswith(".txt") and "submission" not in file


class _Finder:
    """From a cell to a picture: as written, beside the table, or by its name alone, with or without suffix."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in tree.pictures:
            file = name.rsplit("/", 1)[-1]
            self._by_name[file].append(name)
            self._by_name[file.rsplit(".", 1)[0]].append(name)

    def __call__(self, cell: str, base: str, split: str) -> tuple[str, str]:
        """Return (path, trouble); the trouble is empty where exactly one picture is meant."""
        if re.match(r"[a-z]+://", cell):
            return cell, "is named by an address. Download it first"
        wanted = cell.replace("\\", "/").removeprefix("./")
        if wanted.startswith("/") or re.match("[A-Za-z]:/", wanted):
            return self._absolute(wanted)
        for prefix in (base, ""):
            name = str(PurePosixPath(os.path.normpath(prefix + wanted)))
            if name in self.tree.files and is_picture(name):
                return self.tree.files[name], ""
            if ".." in name.split("/") and (self.tree.root / name).is_file():
                return name, ""
        found = self._called(wanted, split)
        if len(found) > 1:
            return wanted, f"is named in the table, but {count(len(found), 'picture')} are called so"
        if not found:
            return wanted, "is named in the table but does not exist"
        return self.tree.files[found[0]], ""

    def _called(self, wanted: str, split: str) -> list[str]:
        """Return the pictures of that name; of several those of the longest common end, and of the same split."""
        found = self._by_name.get(wanted.rsplit("/", 1)[-1], [])
        if len(found) > 1:
            end = "/" + wanted
            found = [n for n in found if n.endswith(end) or n.rsplit(".", 1)[0].endswith(end)] or found
        if len(found) > 1 and split:
            found = [n for n in found if split in map(split_of, n.split("/"))] or found
        return found

    def _absolute(self, wanted: str) -> tuple[str, str]:
        if Path(wanted).is_file():
            return Path(os.path.relpath(wanted, self.tree.root)).as_posix(), ""
        known = self._by_name.get(wanted.rsplit("/", 1)[-1], [])  # written on another computer
        if len(known) == 1:
            return self.tree.files[known[0]], ""
        return wanted, "is named in the table but does not exist"


def _entries(table: _Table, find: _Finder) -> list[Entry]:
    columns, base = table.columns, table.name.rpartition("/")[0]
    base = base + "/" if base else ""
    words = re.split(r"[/._-]", table.name)
    own = next((found for word in words if (found := split_of(word))), "")
    splits = _splits(table) if columns.split else [own] * len(table.frame)
    groups = table.frame[columns.group].to_list() if columns.group else [""] * len(table.frame)
    cells = table.frame[columns.path].to_list()
    entries = []
    for cell, known, split, group in zip(cells, labels_of(table.frame, columns), splits, groups, strict=True):
        path, trouble = find(cell.strip(), base, split)
        entries.append(Entry(path, path, known, split, group.strip(), trouble))
    return entries


def _splits(table: _Table) -> list[str]:
    cells = table.frame[table.columns.split].to_list()
    known = {cell: split_of(cell) if cell.strip() else "" for cell in set(cells)}
    wrong = sorted(cell for cell, split in known.items() if split is None)
    if wrong:
        row = cells.index(wrong[0]) + 2
        raise DataError(f"{table.name} has the split {wrong[0]!r} in row {row}. Write train, val or test.")
    return [known[cell] or "" for cell in cells]


def _merge(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Join the rows of one picture: many such rows are one label a row, a few are contradictions."""
    by_path: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_path[entry.path].append(entry)
    several = {path: rows for path, rows in by_path.items() if len(rows) > 1}
    if not several:
        return entries, []
    a_row_a_label = 20 * len(several) >= len(by_path)
    notes = Counter[str]()
    for path, rows in several.items():
        labels = sorted({row.target for row in rows}, key=natural)
        one = rows[0]
        if len(labels) > 1 and a_row_a_label:
            one = one._replace(target=join_labels(name for cell in labels for name in split_labels(cell)))
            notes["in several rows: they have the labels of all of them"] += 1
        elif len(labels) > 1:
            one = one._replace(
                trouble=f"is labelled {' and '.join(map(repr, labels))} in two rows of the table"
            )
        else:
            notes["in several equal rows: taken once"] += 1
        splits = {row.split for row in rows} - {""}
        if len(splits) > 1:  # what scores may not train
            one = one._replace(split=max(splits, key=_HELD_OUT.index))
            notes["in two splits at once: they score and do not train"] += 1
        by_path[path] = [one]
    merged = [rows[0] for rows in by_path.values()]
    return merged, [f"{count(number, 'picture')} {note}." for note, number in notes.items()]


def _why(tables: list[_Table]) -> str:
    first = tables[0]
    columns, mark = first.columns, first.columns.separator
    said = [
        f"a column for each of {count(len(columns.hot), 'label')}"
        if columns.hot
        else f"the labels in {columns.label!r}"
    ]
    said += [f"several in a cell ({'space' if mark == ' ' else mark})"] if mark else []
    said += [f"the split in {columns.split!r}"] if columns.split else []
    said += [f"the group in {columns.group!r}"] if columns.group else []
    names = some(table.name for table in tables)
    what = f"it names the pictures in {columns.path!r} and {', '.join(said)}"
    return f"a table ({names}{first.code}), because {what}."
