"""Knows by their content what this project writes: a run, answers, doubtful labels. None of it is data."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable

from vitrail.data.manifest import COLUMNS, OLD_COLUMNS

DOUBTS = ("id", "label", "looks_like", "probability")
"""The columns of a draft's doubtful labels."""

_RUN = frozenset(("recipe.yaml", "history.jsonl"))

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
