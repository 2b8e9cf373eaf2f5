"""Tables beside the images: CSV, TSV, JSON lines, Parquet or Excel files of images and labels.

A source may have several tables. Tables with disjoint images and the same labels, one per split, are one reading; a
table with other labels for the same images is a separate reading, and tables are never merged otherwise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.image_finder import FREELY, GONE, Finder, folder_of
from vitrail.data.labels import count, join_labels, natural, shorten, split_in, split_labels
from vitrail.data.layouts import box_tables
from vitrail.data.layouts.annotations import as_json, few
from vitrail.data.layouts.base import ALONE, Entry, Layout, Tree, truth_of
from vitrail.data.layouts.caption_rows import merge_captions, say_columns
from vitrail.data.layouts.clip_files import as_clips, names_videos
from vitrail.data.table_files import (
    SUFFIXES,
    Columns,
    UnclearError,
    code_of,
    is_table,
    labels_of,
    path_columns,
    read_table,
    understand,
    unread_captions,
    unread_places,
    unread_splits,
)
from vitrail.data.truth import Truth

_CODES = {"utf-8-sig": "", "gb18030": ", read as GBK", "cp1252": ", read as Windows-1252"}
_UTF16 = ", read as UTF-16"

_HELD_OUT = ("train", "val", "test")
_COLUMNS = 40  # largest number of columns searched for images
SAMPLE = 500  # rows that are used to find the column of images
_SEVERAL = 20  # one image in so many has several rows where rows are labels rather than contradictions


class Aside(NamedTuple):
    """A table that is not used: the reason, as a predicate, and the number of images that it names."""

    name: str
    why: str
    reached: int = 0


class Readings(NamedTuple):
    """The readings from the tables of a source, the one with most images first, and the unused tables."""

    layouts: list[Layout]
    aside: list[Aside]


class _Table(NamedTuple):
    name: str
    frame: pl.DataFrame
    columns: Columns
    code: str


class _Read(NamedTuple):
    """One table as a separate layout; `table` contains the detected columns."""

    table: _Table
    entries: list[Entry]
    notes: list[str]

    @property
    def named(self) -> dict[str, str]:
        return {entry.path: entry.target for entry in self.entries if not entry.trouble}


def look(tree: Tree) -> Layout | None:
    """Join the rows of a table to the images; None if no table names images with labels.

    Raises:
        DataError: the table is the source but lacks a column or names no existing image, or a split is unknown.
    """
    found = readings(tree).layouts
    return found[0] if found else None


def readings(tree: Tree) -> Readings:
    """Return all readings from the tables of a source; raises like `look`."""
    if tree.table and not is_table(tree.table):
        return Readings([], [])
    around = tree
    if tree.table:
        around = replace(Tree.look(tree.root, tree.options), notes=tree.notes, wanted=tree.wanted)
        around = as_clips(around) if tree.clips or names_videos(tree) else around
    asked, column = _asked(tree)
    boxes = (
        set(box_tables.names(tree))
        if not asked and tree.wanted not in {"class", "classes", "caption"}
        else set()
    )
    names = [asked] if asked else [name for name in _candidates(tree) if name not in boxes]
    find = Finder({name: around.files[name] for name in around.pictures}, around.root)
    read: list[_Read] = []
    aside: list[Aside] = []
    for name in names:
        found = _understood(around, name, column, find)
        if isinstance(found, Aside) and asked:
            raise DataError(f"{name} cannot be used: {found.why}. {ALONE}")
        if isinstance(found, Aside):
            aside.append(found)
        else:
            read.append(_entries(found, find, around))
    if asked and not read[0].named:
        missing = shorten((entry.id for entry in read[0].entries), 2)
        raise DataError(f"None of the images that {asked} names exists ({missing}). Put it beside them.")
    aside += [Aside(one.table.name, "names no image that is here") for one in read if not one.named]
    read.sort(key=lambda one: -len(one.named))
    layouts = [_layout(around, group, tree.table) for group in _groups([one for one in read if one.named])]
    return Readings(layouts, aside)


def _asked(tree: Tree) -> tuple[str, str]:
    """Return the table and the column named by the user; empty without them.

    Raises:
        UnknownNameError: there is no such table.
    """
    wanted = tree.options.labels
    if not wanted:
        return tree.table, ""
    if wanted in tree.files or Path(wanted).is_file():
        return wanted, ""
    name, _, column = wanted.rpartition(":")
    if name in tree.files or (name and Path(name).is_file()):
        return name, column
    if tree.table:
        return tree.table, wanted.removeprefix(":")
    tables = [one for one in tree.files if is_table(one)]
    raise UnknownNameError(
        "table for --labels", wanted, tables, f"There are: {shorten(tables, 6) or 'none'}."
    )


def is_text(name: str) -> bool:
    """Return whether a table is a text file."""
    return name.lower().endswith((".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json"))


def _candidate(name: str) -> bool:
    """Return whether a table may contain labels; contest submissions do not, texts only if called captions."""
    file = name.rsplit("/", 1)[-1].lower()
    text = file.endswith(".txt") and "caption" not in file
    return file.endswith(SUFFIXES) and not text and "submission" not in file


def _candidates(tree: Tree) -> list[str]:
    """Return the tables of a source, including JSON files with records if there is not one per image."""
    lists = tree.clips and not any("/" in name for name in tree.clips)  # clips in one folder, named by a list
    names = [name for name in tree.files if _candidate(name) or (lists and name.lower().endswith(".txt"))]
    records = {name for name in few(tree, ".json") if _holds_records(tree, name)}
    return [name for name in names if not name.lower().endswith(".json") or name in records]


def _holds_records(tree: Tree, name: str) -> bool:
    content = as_json(tree, name)
    if isinstance(content, list):
        first = content[0] if content else None
        return isinstance(first, dict) and not isinstance(first.get("data"), dict)
    return isinstance(content, dict) and all(isinstance(one, str | int) for one in content.values())


def _understood(tree: Tree, name: str, column: str, find: Finder) -> _Table | Aside:
    """Read a table and detect its columns, or return the reason why it is not used."""
    try:
        data = tree.read(name) if name in tree.files else Path(name).read_bytes()
        frame = read_table(name, data)
    except DataError as error:
        return Aside(name, f"it cannot be read ({str(error).removesuffix('.')})")
    frame, path, reached, trouble = image_column(frame, tree, name, find)
    if trouble:
        return Aside(name, trouble, len(frame))
    if not reached and not (known := path_columns(frame)):
        which = shorten(map(repr, frame.columns))
        return Aside(name, f"none of its columns ({which}) names images that are here")
    try:
        columns = understand(frame, path if reached else known[0], tree.options, column, kind=tree.wanted)
    except UnclearError as error:
        return Aside(name, str(error).replace("TABLE", name), reached)
    except DataError as error:
        return Aside(name, str(error))
    kind = name.lower().rsplit(".", 1)[-1]
    code = _CODES.get(code_of(data), _UTF16) if kind in {"csv", "tsv", "txt"} else ""
    return _Table(name, frame, columns, code)


def image_column(
    frame: pl.DataFrame, tree: Tree, name: str, find: Finder
) -> tuple[pl.DataFrame, str, int, str]:
    """Return the frame, its column of images, the number of different images in a sample, and the problem if any.

    A column of folders is joined with the column of file names.
    """
    sample, base, split = frame.gather_every(max(1, len(frame) // SAMPLE)), folder_of(name), split_in(name)
    known = path_columns(frame)
    others = [column for column in frame.columns if column not in known and not _numbers(sample[column])]
    ordered = [*known, *others][:_COLUMNS]
    if not ordered:
        return frame, frame.columns[0], 0, ""
    reached = {column: find.meant(sample[column], base, split) for column in ordered}
    best = max(ordered, key=lambda column: reached[column][0])
    stuck = next((column for column in ordered if reached[column][1]), "")
    if stuck and (joined := _with_folder(frame, stuck, tree)) is not None:
        return joined, stuck, *find.meant(joined[stuck], base, split)
    if stuck and reached[best][0] * 2 < len(sample):
        return frame, stuck, 0, reached[stuck][1]
    return frame, best, reached[best][0], ""


def _numbers(column: pl.Series) -> bool:
    """Return whether a column contains plain numbers, which match images called 1, 2, 3 only by chance."""
    return all(cell.strip().isdigit() for cell in column if cell.strip())


def _with_folder(frame: pl.DataFrame, path: str, tree: Tree) -> pl.DataFrame | None:
    """Return the frame with folder/name in the column of names, if another column contains the folders."""
    folders = {name.rpartition("/")[0] for name in tree.pictures}
    known = {last for folder in folders for last in (folder, folder.rpartition("/")[2])}
    for column in frame.columns:
        if column != path and set(frame[column].str.strip_chars().unique()) <= known:
            return frame.with_columns((pl.col(column).str.strip_chars() + "/" + pl.col(path)).alias(path))
    return None


def _entries(table: _Table, find: Finder, tree: Tree) -> _Read:
    columns, base = table.columns, folder_of(table.name)
    splits = _splits(table, tree)
    groups = table.frame[columns.group].to_list() if columns.group else [""] * len(table.frame)
    cells = table.frame[columns.path].to_list()
    find.freely = 0
    entries = []
    for cell, known, split, group in zip(cells, labels_of(table.frame, columns), splits, groups, strict=True):
        path, trouble = find(cell, base, split)
        entries.append(Entry(path, path, known, split, group.strip(), trouble))
    notes = []
    if find.freely:
        notes.append(f"{count(find.freely, 'name')} of {table.name} found {FREELY}.")
    said = [unread_splits(table.frame, columns), unread_captions(table.frame, columns)]
    said += [] if tree.options.groups else [unread_places(table.frame, columns)]
    notes += [f"{table.name}: {one}." for one in said if one]
    entries, merged = merge_captions(entries) if columns.captions else _merge(entries)
    return _Read(table, entries, [*notes, *merged])


def _splits(table: _Table, tree: Tree) -> list[str]:
    """Return the split of every row, from its column or else from the name of the table."""
    column = table.columns.split
    if not column:
        return ["" if tree.options.splits == "none" else split_in(table.name)] * len(table.frame)
    known = table.columns.split_words
    cells = [cell.strip() for cell in table.frame[column].to_list()]
    wrong = next((i for i, cell in enumerate(cells) if cell and cell.casefold() not in known), None)
    if wrong is not None:
        told = ",".join(f"{word}={split}" for word, split in {**known, cells[wrong]: "test"}.items())
        raise DataError(
            f"{table.name} has the split {cells[wrong]!r} in row {wrong + 2}. Write train, val or test, or say what "
            f"the words mean: --splits {told}"
        )
    return [known.get(cell.casefold(), "") for cell in cells]


def _merge(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Merge the rows of one image: many such rows mean one label per row, a few are contradictions."""
    by_path: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_path[entry.path].append(entry)
    several = {path: rows for path, rows in by_path.items() if len(rows) > 1}
    if not several:
        return entries, []
    a_row_a_label = _SEVERAL * len(several) >= len(by_path)
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
        if len(splits) > 1:  # test images must not be used for training
            one = one._replace(split=max(splits, key=_HELD_OUT.index))
            notes["in two splits at once: they score and do not train"] += 1
        by_path[path] = [one]
    merged = [rows[0] for rows in by_path.values()]
    return merged, [f"{count(number, 'image')} {note}." for note, number in notes.items()]


def _groups(read: Sequence[_Read]) -> list[list[_Read]]:
    """Combine tables that are parts of one reading: different images, labels from the same column."""
    groups: list[list[_Read]] = []
    for one in read:
        for group in groups:
            apart = all(one.named.keys().isdisjoint(other.named) for other in group)
            agree = all(
                other.named.get(path, known) == known for other in group for path, known in one.named.items()
            )
            alike = group[0].table.columns._replace(split="", split_words={}) == one.table.columns._replace(
                split="", split_words={}
            )
            if (agree and alike) or (apart and _labels(one) & _labels(group[0])):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _labels(one: _Read) -> set[str]:
    return {label for cell in set(one.named.values()) for label in split_labels(cell)}


def _layout(tree: Tree, group: Sequence[_Read], source: str) -> Layout:
    entries = [entry for one in group for entry in one.entries]
    gone = [entry for entry in entries if entry.trouble == GONE]
    captions = group[0].table.columns.captions
    merge = merge_captions if captions else _merge
    entries, merged = merge(entries) if len(group) > 1 else (entries, [])
    notes = [*merged, *(note for one in group for note in one.notes)]
    if 2 * len(gone) > len(entries):
        notes.append(
            f"{count(len(gone), 'row')} of {count(len(entries), 'row')} name {tree.noun}s that are not here."
        )
    refused = () if source else tree.refused
    why = _why(tree.noun, [one.table for one in group])
    found = (*entries, *refused)
    truth = Truth("caption") if captions else truth_of(entries)
    names = tuple(one.table.name for one in group)
    return Layout("table", tree.root, why, found, tuple(notes), truth, tables=names)


def unnamed(tree: Tree, layout: Layout) -> list[str]:
    """Return a note on the images that no row names."""
    named = {entry.path for entry in layout.found}
    rest = [] if tree.table else [name for name in tree.pictures if tree.files[name] not in named]
    return [f"{count(len(rest), tree.noun)} that no table names left aside: {shorten(rest)}."] if rest else []


def _why(noun: str, tables: Iterable[_Table]) -> str:
    first, *others = tables
    columns, mark = first.columns, first.columns.separator
    said = [
        f"a column for each of {count(len(columns.hot), 'label')}"
        if columns.hot
        else say_columns(columns.captions)
        if columns.captions
        else f"the labels in {columns.label!r}"
    ]
    said += [f"several in a cell ({'space' if mark == ' ' else mark})"] if mark else []
    said += [f"the split in {columns.split!r}"] if columns.split else []
    said += [f"the group in {columns.group!r}"] if columns.group else []
    names = shorten(table.name for table in (first, *others))
    what = f"it names the {noun}s in {columns.path!r} and {', '.join(said)}"
    return f"a table ({names}{first.code}), because {what}."
