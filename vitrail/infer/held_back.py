"""The pictures a model is proven on: those of its run, what it never trained on first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.data.manifest import Row
from vitrail.data.source import load as load_picture
from vitrail.runs.folder import Run

Pixels = NDArray[np.uint8]
Reader = Callable[[], Pixels]
"""Reads and decodes one picture; a photograph in memory is large, and two hundred of them are too much."""


def root_of(run: Run) -> Path:
    """Return where the run's pictures lay when it was trained.

    Raises:
        RunError: they are not there any more.
    """
    root = None
    try:
        with safe_open(run.state_path, framework="pt") as handle:
            root = Path(json.loads(handle.metadata()["counters"])["root"])
    except (SafetensorError, OSError, KeyError):
        pass  # said below, with the way out
    if root is None or not root.exists():
        raise RunError(
            f"The pictures of {run.folder} are not where they were. Put them back, or name their folder with --data."
        )
    return root


def readers_of(run: Run, root: Path, splits: Iterable[str], channels: int, wanted: int) -> list[Reader]:
    """Return what reads the pictures of a run, split after split, `wanted` at most."""
    manifest = run.manifest(root)
    rows = [row for split in splits for row in manifest.rows(split)][:wanted]
    return [partial(_of_row, root, row, channels) for row in rows]


def readable(readers: Iterable[Reader]) -> Iterator[Pixels]:
    """Yield the pictures that can be read, one at a time; a DataError with the first reason where none can."""
    return (picture for _, picture in _tried(readers))


def usable(readers: Iterable[Reader]) -> list[Reader]:
    """Return the readers whose pictures can be read, which are not kept; a DataError where none can."""
    return [read for read, _ in _tried(readers)]


def _tried(readers: Iterable[Reader]) -> Iterator[tuple[Reader, Pixels]]:
    some, wrong = False, ""
    for read in readers:
        try:
            picture = read()
        except VitrailError as error:  # it proves nothing either way; the others do
            wrong = wrong or str(error)
            continue
        some = True
        yield read, picture
    if not some:
        raise DataError(f"No picture could be read to prove anything on. {wrong} Name a folder with --data.")


def _of_row(root: Path, row: Row, channels: int) -> Pixels:
    return load_picture(root, row.path, channels).image
