"""The pictures a model is proven on: those of its run, what it never trained on first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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


def pictures_of(run: Run, root: Path, splits: Iterable[str], channels: int, wanted: int) -> list[Pixels]:
    """Return decoded pictures of a run, split after split, `wanted` at most.

    Raises:
        DataError: none can be read any more.
    """
    manifest = run.manifest(root)
    rows = [row for split in splits for row in manifest.rows(split)][:wanted]
    return readable(partial(_of_row, root, row, channels) for row in rows)


def readable(readers: Iterable[Callable[[], Pixels]]) -> list[Pixels]:
    """Return what can be read; a DataError with the first reason where nothing can."""
    found: list[Pixels] = []
    wrong = ""
    for read in readers:
        try:
            found.append(read())
        except VitrailError as error:  # it proves nothing either way; the others do
            wrong = wrong or str(error)
    if not found:
        raise DataError(f"No picture could be read to prove anything on. {wrong} Name a folder with --data.")
    return found


def _of_row(root: Path, row: Row, channels: int) -> Pixels:
    return load_picture(root, row.path, channels).image
