"""Decisions about the images of a run: a label that is corrected, an image that is left out; each can be undone.

They are decisions about the data set (`data/decisions.py`), so the check, the next training and the command line see
them. The run itself never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.decisions import Decision, History, history_path
from vitrail.studio.run_files import RunFiles

What = Literal["relabel", "drop"]


class Correction(NamedTuple):
    """A decision about an image that holds: its number, the new label ("" if the image is left out), and its time."""

    number: int
    label: str
    time: str


class Corrections:
    """The decisions about the data set of a run; requests that decide at once wait for each other."""

    def __init__(self) -> None:
        self._writing = Lock()

    def history(self, run: RunFiles) -> History:
        """Return the decisions about the images of a run; none if they are not on this machine."""
        path = _path(run)
        return History() if path is None else History.read(path)

    def decide(self, run: RunFiles, what: What, ids: Sequence[str], label: str = "") -> Decision:
        """Note one decision about images of a run.

        Raises:
            DataError: the run has no such image, or its images are not on this machine.
        """
        for id in ids:
            run.row(id)
        with self._writing:
            path = _needed(run)
            history = History.read(path).decide(what, ids, label, f"seen in the result of {run.name}")
            history.write(path)
        return history.decisions[-1]

    def undo(self, run: RunFiles, number: int) -> None:
        """Take a decision back. DataError if there is no such decision, or it is taken back already."""
        with self._writing:
            path = _needed(run)
            History.read(path).undo(number).write(path)


def holding(history: History) -> dict[str, Correction]:
    """Return the last decision by hand about each image that holds."""
    undone = history.undone()
    return {
        id: Correction(one.number, one.value, one.time)
        for one in history.decisions
        if one.what in ("relabel", "drop") and one.number not in undone
        for id in one.ids
    }


def place_of(run: RunFiles) -> Path | None:
    """Return where the data set of a run lies, None if it is not here; its name is relative to the workspace."""
    from vitrail.data.prepare import find

    source = run.source()
    if not source:
        return None
    below = run.folder.parent.parent / source
    place = below if below.exists() else find(source)
    return place if place.exists() else None


def _path(run: RunFiles) -> Path | None:
    place = place_of(run)
    return None if place is None else history_path(place)


def _needed(run: RunFiles) -> Path:
    path = _path(run)
    if path is None:
        raise DataError(
            f"The images of {run.name} were in {run.source() or 'a place that it does not name'}, which is not here. "
            "Put them back to correct their labels."
        )
    return path
