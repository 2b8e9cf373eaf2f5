"""Images of a run for checks of a model; callers name the splits that it was not trained on first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.data.changed_images import load_unchanged, load_unchanged_clip
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.runs.run import Run

Thing = TypeVar("Thing")

Pixels = NDArray[Any]
Reader = Callable[[], Pixels]
"""Reads and decodes one image. Two hundred decoded photographs at once would need too much memory."""


def root_of(run: Run) -> Path:
    """Return the folder of the run's images at training time.

    Raises:
        RunError: they are no longer there.
    """
    with suppress(RunError):  # reported below, with the option of this command
        root = run.root()
        if root.exists():
            return root
    raise RunError(
        f"The images of {run.folder} were moved or deleted. Put them back, or name their folder with --data."
    )


def readers_of(
    run: Run, root: Path, splits: Iterable[str], steps: Preprocess, wanted: int, *, unchanged: bool = True
) -> list[Reader]:
    """Return readers for at most `wanted` images of a run, split by split; a larger split is sampled evenly.

    With `unchanged`, images that changed since the run raise an error when read.
    """
    manifest = run.manifest(root)
    rows: list[Row] = []
    for split in splits:
        rows += spread(manifest.rows(split), wanted - len(rows))
    rows = rows if unchanged else [row._replace(hash="") for row in rows]
    return [partial(_of_row, root, row, steps) for row in rows]


def spread(things: Sequence[Thing], wanted: int) -> Sequence[Thing]:
    """Return `wanted` evenly spaced items (all, if there are fewer): rows are sorted by class."""
    if len(things) <= wanted:
        return things
    return [things[i * len(things) // wanted] for i in range(wanted)]


def readable(readers: Iterable[Reader]) -> Iterator[Pixels]:
    """Yield the images that can be read, one at a time; DataError with the first reason if none can."""
    return (picture for _, picture in _tried(readers))


def usable(readers: Iterable[Reader]) -> list[Reader]:
    """Return the readers whose images can be read, without keeping the images; DataError if none can."""
    return [read for read, _ in _tried(readers)]


def _tried(readers: Iterable[Reader]) -> Iterator[tuple[Reader, Pixels]]:
    some, wrong = False, ""
    for read in readers:
        try:
            picture = read()
        except VitrailError as error:  # skip it; the other images are enough
            wrong = wrong or str(error)
            continue
        some = True
        yield read, picture
    if not some:
        raise DataError(f"No image for the check could be read. {wrong} Name a folder with --data.")


def _of_row(root: Path, row: Row, steps: Preprocess) -> Pixels:
    if steps.frames:
        return load_unchanged_clip(root, row, steps.frames, steps.channels)
    return load_unchanged(root, row, steps.channels, raw=steps.raw, bands=steps.band_names).image
