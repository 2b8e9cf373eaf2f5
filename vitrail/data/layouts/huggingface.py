"""Read Hugging Face data sets on disk: `save_to_disk` folders, and Parquet files that contain the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from vitrail.data.captions import NAMES, WEAK_NAMES, are_captions, join_captions
from vitrail.data.containers import arrow_table
from vitrail.data.labels import count, join_labels, natural, shorten, split_in
from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of
from vitrail.data.table_files import plain
from vitrail.data.truth import Truth

_TEXT = ("string", "large_string")
_LABELS = ("label", "labels", "fine_label", "class", "target", "category", "tags")


def look(tree: Tree) -> Layout | None:
    """Read images and labels from Arrow or Parquet files; None if no file contains images.

    Raises:
        DataError: pyarrow is not installed, or a file is broken.
    """
    saved = any(name.rsplit("/", 1)[-1] == "state.json" for name in tree.files)
    kind = ".arrow" if saved else ".parquet"
    files = [name for name in tree.files if name.endswith(kind) and "!" not in tree.files[name]]
    if not saved:
        files = [name for name in files if _may_hold_images(tree.root / tree.files[name])]
    entries: list[Entry] = []
    used = []
    for name in files:
        columns = _columns(arrow_table(tree.root / tree.files[name]), saved, tree.wanted)
        if columns is not None:
            used.append(columns)
            entries += _entries(tree, name, columns)
    if not used:
        return None
    if used[0].captions:
        return _captioned(tree, used, entries, saved=saved)
    classes = sorted({entry.target for entry in entries}, key=natural)
    why = f"{_why(used, 'labels', saved=saved)}: {shorten(classes)}."
    # An empty list means "none of the labels"; an empty cell of a table has no meaning.
    listed = any(one.lists for one in used) and any(
        not entry.target for entry in entries if not entry.trouble
    )
    truth = Truth("classes") if listed else truth_of(entries)
    return Layout("huggingface", tree.root, why, tuple(entries), (), truth)


class _Columns(NamedTuple):
    """The columns of images and labels, the names of the labels, and whether a cell is a list, or captions."""

    image: str
    label: str
    names: list[str]
    lists: bool
    captions: bool = False


def _captioned(tree: Tree, used: list[_Columns], entries: list[Entry], *, saved: bool) -> Layout:
    why = f"{_why(used, 'captions', saved=saved)}."
    return Layout("huggingface", tree.root, why, tuple(entries), (), Truth("caption"))


def _why(used: list[_Columns], what: str, *, saved: bool) -> str:
    source = "a folder made by save_to_disk" if saved else "Parquet files with the images inside"
    number = count(len(used), "file holds", "files hold")
    return f"{source}, because {number} images in {used[0].image!r} and {what} in {used[0].label!r}"


def _may_hold_images(file: Path) -> bool:
    """Return whether a Parquet file has a column of structures; a plain table can be read without pyarrow."""
    try:
        return any(isinstance(kind, pl.Struct) for kind in pl.read_parquet_schema(file).values())
    except (Exception, pl.exceptions.PanicException):  # broken: the layout of tables reports it
        return False


def _columns(table: Any, saved: bool, wanted: str) -> _Columns | None:
    """Return the columns of images and labels or captions, and the names of the labels if the file states them."""
    schema = table.schema if saved else table.schema_arrow
    image = next((field.name for field in schema if _holds_images(field)), None)
    label = next((name for name in _LABELS if name in schema.names), None)
    if image is None:
        return None
    if wanted == "caption" or (label is None and wanted == ""):
        texts = _texts(table, schema, saved, wanted)
        return _Columns(image, texts, [], False, captions=True) if texts else None
    if label is None:
        return None
    names = _names((schema.metadata or {}).get(b"huggingface", b"{}"), label)
    return _Columns(image, label, names, "list" in str(schema.field(label).type))


def _texts(table: Any, schema: Any, saved: bool, wanted: str) -> str:
    """Return the column of texts that are captions, or is called so if captions are wanted; "" without one."""
    known: list[str] = [
        field.name for name in (*NAMES, *WEAK_NAMES) for field in schema if plain(field.name) == name
    ]
    texts: list[str] = [
        field.name for field in schema if str(field.type) in _TEXT and field.name not in known
    ]
    for column in (*known, *texts):
        if "string" not in str(schema.field(column).type):
            continue
        cells = table.column(column) if saved else table.read(columns=[column]).column(column)
        flat = [
            one for cell in cells.to_pylist() for one in (cell if isinstance(cell, list) else [cell or ""])
        ]
        if (wanted and column in known) or are_captions(flat, named=column in known):
            return column
    return ""


def _names(about: bytes, label: str) -> list[str]:
    try:
        feature = json.loads(about)["info"]["features"][label]
        names = feature.get("names") or (feature.get("feature") or {}).get("names") or []
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # written by another program: labels remain numbers
        names = []
    return list(names)


def _holds_images(field: Any) -> bool:
    kind = str(field.type)
    return kind.startswith("struct<") and "bytes" in kind


def _entries(tree: Tree, name: str, columns: _Columns) -> list[Entry]:
    image, label, names = columns.image, columns.label, columns.names
    file = tree.root / tree.files[name]
    table = arrow_table(file)
    column = table.column(label) if file.suffix == ".arrow" else table.read(columns=[label]).column(label)
    split = split_in(name)

    def named(value: Any) -> str:
        return names[value] if names and isinstance(value, int) else str(value)

    entries = []
    for i, value in enumerate(column.to_pylist()):
        many = value if isinstance(value, list) else [value]
        path = f"{tree.files[name]}!{image}!{i}"
        if columns.captions:
            entries.append(Entry(path, path, join_captions(str(one or "") for one in many), split))
            continue
        unknown = value is None or value == -1  # the usual value for hidden labels of a contest
        cell = "" if unknown else join_labels(named(one) for one in many)
        entries.append(Entry(path, path, cell, split, trouble="has no label" if unknown else ""))
    return entries
