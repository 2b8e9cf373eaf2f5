"""Knows by their content what this project writes: a run, answers, doubtful labels. None of it is data."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence

from vitrail.core.text import MADE_BY
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import COLUMNS, OLD_COLUMNS

DOUBTS = ("id", "label", "looks_like", "probability")
"""The columns of a draft's doubtful labels."""

_RUN = frozenset(("recipe.yaml", "history.jsonl"))

HEAD = 256
"""Bytes of a figure that tell who drew it."""

DEMO = "made-by-vitrail-demo.txt"
"""A file that marks the folder of a demo."""


def folders(names: Iterable[str]) -> dict[str, str]:
    """Return the folders that this project made → what they are, by the files that every such folder has."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if file in _RUN or file == DEMO:
            inside.setdefault(folder, set()).add(file)
    runs = {folder: "a run" for folder, files in inside.items() if files >= _RUN}
    return runs | {folder: "a demo" for folder, files in inside.items() if DEMO in files}


def is_figure(head: bytes) -> bool:
    """Tell by the first 256 bytes of a PNG that this project drew it."""
    return head.startswith(b"\x89PNG") and f"tEXtSoftware\0{MADE_BY}".encode() in head


def figures(names: Iterable[str], head: Callable[[str], bytes]) -> list[str]:
    """Return the figures among files; where the first PNG of a folder is none, no other there is opened."""
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
    """Say which figures were left aside."""
    return [f"{count(len(drawn), 'figure')} that vitrail drew left aside: {shorten(drawn)}."] if drawn else []


def what_is(name: str, read: Callable[[str], bytes]) -> str:
    """Return what a table of ours is, in words, or nothing for a table of somebody else."""
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
    if len(head) > 2 and (head[0], head[-1]) == ("path", "error"):
        return "answers of vitrail predict"
    return ""
