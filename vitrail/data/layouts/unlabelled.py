"""Images without labels: every image of a source, with the splits and groups that its other readings know of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vitrail.core.errors import DataError
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import table
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.table_files import group_column, is_table, read_table, split_column
from vitrail.data.truth import Truth

NAME = "images"


def without_labels(tree: Tree, readings: Sequence[Layout]) -> Layout | None:
    """Return all images of a source without labels; None if there is no image.

    `readings` are those of the labels that it may have, the best first: they know which files are masks, which images
    a file holds, and what belongs to which split or group.

    Raises:
        DataError: the source is a table that names no image.
    """
    readings = [one for one in readings if one.raster is None]
    masks = {name for one in readings for name in one.truths}
    rest = [tree.entry(name, "") for name in tree.pictures if name not in masks]
    known = _merged([*(entry for one in readings for entry in one.found if not entry.trouble)])
    if tree.table and not known and is_table(tree.table):
        known = _listed(tree)
    paths = {entry.path for entry in known}
    found = [*known, *(entry for entry in rest if entry.path not in paths)]
    if not found:
        return None
    if not any(entry.split for entry in found):
        found = _in_split_folders(tree, found)
    why = "images only, because the task needs no labels."
    tables = tuple(name for one in readings for name in one.tables)
    used = (*tables, *masks, tree.table)
    notes = (*tree.notes, *tree.odd_notes(), *tree.other_notes(used), *_aside(readings, masks))
    return Layout(NAME, tree.root, why, (*found, *tree.refused), notes, Truth("none"))


def _merged(entries: Iterable[Entry]) -> list[Entry]:
    """Return each image once and without a label, with the first split and group that is known of it."""
    merged: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.path, entry.part)
        before = merged.get(key, entry)
        merged[key] = before._replace(
            target="", split=before.split or entry.split, group=before.group or entry.group
        )
    return list(merged.values())


def _listed(tree: Tree) -> list[Entry]:
    """Return the images that a table without labels names."""
    around = Tree.look(tree.root, tree.options)
    find = Finder({name: around.files[name] for name in around.pictures}, around.root)
    frame = read_table(tree.table, tree.read(tree.table))
    frame, path, reached, trouble = table.image_column(frame, around, tree.table, find)
    if trouble or not reached:
        why = (
            trouble or f"none of its columns ({shorten(map(repr, frame.columns))}) names images that are here"
        )
        raise DataError(f"{tree.table} cannot be used: {why}. Give the folder of the images.")
    column, words = split_column(frame, tree.options)
    tied = group_column(frame, tree.options)
    blank = [""] * len(frame)
    rows = zip(frame[path], frame[column] if column else blank, frame[tied] if tied else blank, strict=True)
    entries = []
    for cell, split, group in rows:
        place, wrong = find(cell, folder_of(tree.table))
        entries.append(Entry(place, place, "", words.get(split.strip().casefold(), ""), group.strip(), wrong))
    return _merged(entries)


def _in_split_folders(tree: Tree, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with the splits of the outermost folders called so, if one of them is for training."""
    parts = [tuple(entry.id.rpartition("!")[2].split("/")) for entry in entries]
    deepest = min(map(len, parts)) - 1
    for depth in range(deepest):
        names = dict.fromkeys(part[depth] for part in parts)
        splits = tree.options.splits_among(names)
        if "train" in splits.values():
            return [
                entry._replace(split=splits.get(part[depth], ""))
                for entry, part in zip(entries, parts, strict=True)
            ]
        if len(names) > 1:
            break
    return list(entries)


def _aside(readings: Sequence[Layout], masks: set[str]) -> list[str]:
    """Return notes on what was left aside: labels that a source has, and masks."""
    notes = [f"{count(len(masks), 'mask')} left aside: they are no images to learn from."] if masks else []
    labelled = [one for one in readings if one.explained and not one.plain and one.name != "filenames"]
    if labelled:
        first = labelled[0]
        what = first.tables[0] if first.tables else first.name
        notes.append(f"The labels of {count(len(first.explained), 'image')} ({what}) are left aside.")
    return notes
