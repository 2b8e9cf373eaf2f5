"""The images a model is proven on: those of its run, what it never trained on first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.data.changed_images import load_unchanged
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.runs.run import Run

Thing = TypeVar("Thing")

Pixels = NDArray[Any]
Reader = Callable[[], Pixels]
"""Reads and decodes one image; a photograph in memory is large, and two hundred of them are too much."""


def root_of(run: Run) -> Path:
    """Return where the run's images lay when it was trained.

    Raises:
        RunError: they are not there any more.
    """
    with suppress(RunError):  # said below, with this verb's way out
        root = run.root()
        if root.exists():
            return root
    raise RunError(
        f"The images of {run.folder} are not where they were. Put them back, or name their folder with --data."
    )


def readers_of(
    run: Run, root: Path, splits: Iterable[str], steps: Preprocess, wanted: int, *, unchanged: bool = True
) -> list[Reader]:
    """Return what reads images of a run, `wanted` at most, split after split; a split that is too large is spread.

    With `unchanged` an image that is no longer the one that the run saw is not read.
    """
    manifest = run.manifest(root)
    rows: list[Row] = []
    for split in splits:
        rows += spread(manifest.rows(split), wanted - len(rows))
    rows = rows if unchanged else [row._replace(hash="") for row in rows]
    return [partial(_of_row, root, row, steps) for row in rows]


def spread(things: Sequence[Thing], wanted: int) -> Sequence[Thing]:
    """Return `wanted` things at even distances, all where there are no more: rows lie class by class."""
    if len(things) <= wanted:
        return things
    return [things[i * len(things) // wanted] for i in range(wanted)]


def readable(readers: Iterable[Reader]) -> Iterator[Pixels]:
    """Yield the images that can be read, one at a time; a DataError with the first reason where none can."""
    return (picture for _, picture in _tried(readers))


def usable(readers: Iterable[Reader]) -> list[Reader]:
    """Return the readers whose images can be read, which are not kept; a DataError where none can."""
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
        raise DataError(f"No image could be read to prove anything on. {wrong} Name a folder with --data.")


def _of_row(root: Path, row: Row, steps: Preprocess) -> Pixels:
    return load_unchanged(root, row, steps.channels, raw=steps.raw).image
