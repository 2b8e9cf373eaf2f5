"""Cut long videos into clips of some seconds: rows with parts of frames, without decoding a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.frame_folders import RATE
from vitrail.data.labels import count
from vitrail.data.layouts.base import Entry
from vitrail.data.open_image import place, read
from vitrail.data.parts import Part, frames_part
from vitrail.data.video_index import index_of

_REST = 0.5
"""A rest shorter than this share of a clip belongs to the clip before it."""


def cut(root: Path, entries: Sequence[Entry], seconds: float | None) -> tuple[list[Entry], list[str]]:
    """Return the entries, those of longer clips cut into several of `seconds`, and a note.

    No frame is lost: what remains is a clip of its own, or the end of the last one if it is shorter than half a clip.
    A video that cannot be opened stays whole; the check says why.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    if seconds is None:
        return list(entries), []
    pieces: list[Entry] = []
    longer = 0
    for entry in entries:
        own = list(_pieces(root, entry, seconds))
        longer += len(own) > 1
        pieces += own
    number = len(pieces) - len(entries) + longer
    if not longer:
        return pieces, [f"No clip is so long that --seconds {seconds:g} cuts it."]
    return pieces, [
        f"{count(longer, 'longer clip')} cut into {number:,} of {seconds:g} s; those of one stay in one split."
    ]


def _pieces(root: Path, entry: Entry, seconds: float) -> Iterator[Entry]:
    try:
        times = None if entry.trouble else _times(root, entry)
    except MissingExtraError:
        raise
    except DataError:
        times = None
    spans = list(_spans(times, seconds)) if times is not None else []
    if len(spans) < 2:
        yield entry
        return
    for first, stop in spans:
        part = frames_part(first, stop)
        yield entry._replace(id=f"{entry.id}#{first}-{stop - 1}", part=part, group=entry.group or entry.path)


def _times(root: Path, entry: Entry) -> NDArray[np.float64]:
    """Return the seconds at which each frame of a whole clip begins, and its end: (n + 1,)."""
    if entry.part:
        return np.arange(Part.of(entry.part, entry.path).numbers[1] + 1) / RATE
    where = place(root, entry.path)
    return index_of(read(root, entry.path) if where.inside else where.file, entry.path).times


def _spans(times: NDArray[np.float64], seconds: float) -> Iterator[tuple[int, int]]:
    """Yield the first frame of each clip and the frame after its last one; each has one frame at least."""
    length = float(times[-1])
    number = max(1, int(length / seconds + 1 - _REST))
    starts = np.searchsorted(times[:-1], np.arange(number) * seconds - 1e-6)
    bounds = [*np.unique(starts).tolist(), len(times) - 1]
    yield from ((first, stop) for first, stop in pairwise(bounds) if first < stop)
