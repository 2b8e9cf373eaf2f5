"""Recognise by content the outputs of vitrail (runs, predictions, label errors), which are not data."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence

from vitrail.core.text import MADE_BY
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import COLUMNS, OLD_COLUMNS

DOUBTS = ("id", "label", "looks_like", "probability")
"""The columns of a draft's list of label errors."""

FIX = (
    "id", "split", "label", "looks_like", "confidence", "margin", "why", "decision", "new_label", "hash"
)  # fmt: skip
"""The columns of the list of `vitrail fix`."""

_RUN = frozenset(("recipe.yaml", "history.jsonl"))

HEAD = 256
"""Number of bytes of a figure that show whether vitrail wrote it."""

DEMO = "made-by-vitrail-demo.txt"
"""A file that marks the folder of a demo."""


def folders(names: Iterable[str]) -> dict[str, str]:
    """Return the folders written by vitrail → their kind, by the files that every such folder has."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if file in _RUN or file == DEMO:
            inside.setdefault(folder, set()).add(file)
    runs = {folder: "a run" for folder, files in inside.items() if files >= _RUN}
    return runs | {folder: "a demo" for folder, files in inside.items() if DEMO in files}


def is_figure(head: bytes) -> bool:
    """Return whether the first 256 bytes of a PNG show that vitrail wrote it."""
    return head.startswith(b"\x89PNG") and f"tEXtSoftware\0{MADE_BY}".encode() in head


def figures(names: Iterable[str], head: Callable[[str], bytes]) -> list[str]:
    """Return the figures among files; if the first PNG of a folder is not one, the others are not opened."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(".png"):
            by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    return [
        name
        for inside in by_folder.values()
        if is_figure(head(inside[0]))
        for name in inside
        if is_figure(head(name))
    ]


def figure_note(drawn: Sequence[str]) -> list[str]:
    """Return a note about ignored figures."""
    return [f"{count(len(drawn), 'figure')} that vitrail drew left aside: {shorten(drawn)}."] if drawn else []


def what_is(name: str, read: Callable[[str], bytes]) -> str:
    """Return the kind of a table written by vitrail, or "" for any other table."""
    if not name.lower().endswith(".csv"):
        return ""
    try:
        first = read(name)[:4096].decode("utf-8-sig").splitlines()[:1]
    except UnicodeDecodeError:
        return ""
    head = tuple(next(csv.reader(first), []))
    if head in {COLUMNS, OLD_COLUMNS}:
        return "the manifest of a run"
    if head == DOUBTS:
        return "the doubtful labels of a draft"
    if head == FIX:
        return "the list of vitrail fix"
    if len(head) > 2 and (head[0], head[-1]) == ("path", "error"):
        return "answers of vitrail predict"
    return ""
