"""WebDataset shards: tar files in which 0001.jpg stands beside 0001.cls, 0001.json or 0001.txt."""

from __future__ import annotations

import json
import re
from typing import Any

from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of
from vitrail.data.names import count, join_labels, label, natural, some, split_labels, split_of

_LABELS = ("cls", "json", "txt")
_KEYS = ("label", "cls", "class", "class_name", "category", "labels", "tags")


def look(tree: Tree) -> Layout | None:
    """Read the label beside every picture; None where fewer than nine in ten pictures have one."""
    beside = {name: found for name in tree.pictures if (found := _label_file(tree, name))}
    if not beside or len(beside) < 0.9 * len(tree.pictures) or not all("!" in tree.files[n] for n in beside):
        return None
    entries = [_entry(tree, name, beside.get(name)) for name in tree.pictures]
    classes = sorted({one for entry in entries for one in split_labels(entry.target)}, key=natural)
    why = (
        f"WebDataset shards, because every picture has a label file beside it; "
        f"{count(len(classes), 'class', 'classes')}: {some(classes)}."
    )
    numbers = all(one.isdigit() for one in classes)
    note = ["The classes are numbers: their names are not in the shards."] if numbers else []
    return Layout(
        "webdataset", tree.root, why, (*entries, *tree.refused), (*tree.notes, *note), truth_of(entries)
    )


def _label_file(tree: Tree, name: str) -> str | None:
    folder, _, file = name.rpartition("/")
    stem = f"{folder}/{file.split('.', 1)[0]}" if folder else file.split(".", 1)[0]
    return next((f"{stem}.{kind}" for kind in _LABELS if f"{stem}.{kind}" in tree.files), None)


def _entry(tree: Tree, name: str, beside: str | None) -> Entry:
    shard = name.split("/")[0] if "/" in name else tree.files[name].split("!")[0]
    split = next((found for word in re.split(r"[-_.]", shard) if (found := split_of(word))), "")
    known = _read_label(tree.read(beside), beside) if beside else ""
    entry = tree.entry(name, known, split)
    return entry if known else entry._replace(trouble="has no label beside it in its shard")


def _read_label(data: bytes, name: str) -> str:
    text = data.decode("utf-8", errors="replace").strip()
    if not name.endswith(".json"):
        return join_labels([label(text)]) if text else ""
    try:
        content: Any = json.loads(text)
    except ValueError:
        return ""
    if isinstance(content, dict):
        content = next((content[key] for key in _KEYS if key in content), None)
    if isinstance(content, list):
        return join_labels(str(one) for one in content)
    return join_labels([str(content)]) if content is not None and not isinstance(content, dict) else ""
