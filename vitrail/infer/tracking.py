"""Follow objects through a clip: boxes of single frames get numbers that stay (ByteTrack, arXiv:2110.06864).

Boxes with a high score are assigned first, by overlap with where each object is expected; then those with a low score,
which are often objects that are half hidden, to objects that are still missing. Only a high score begins a new object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.boxes import FoundBoxes, iou_table
from vitrail.infer.motion import Motion, ahead, corrected, start, without_growth

LOW = 1 / 5
"""A score is low from this share of the threshold on (0.1 of 0.5 in the paper); below it, nothing is followed."""

FIRST, SECOND, NEW = 0.2, 0.5, 0.3
"""The least overlap (IoU) with high scores, with low scores, and of objects that were seen only once."""

SAME = 0.85
"""Two objects that overlap more, of which one is hidden, are one: that with the longer past stays."""

HIDDEN = 1.0
"""Seconds after which an object that is not seen is given up; if it returns it gets a new number."""


@dataclass(frozen=True, slots=True)
class Track:
    """An object that is followed: its number (0 until it was seen twice), class, motion, and when it was seen.

    `began` and `seen` are seconds; `place` is its box among those of the present frame, -1 if it is hidden.
    """

    id: int
    kind: int
    motion: Motion
    began: float
    seen: float
    place: int


class Tracked(NamedTuple):
    """An object in a frame: its number, which counts from 1, and the place of its box among those found."""

    id: int
    place: int


class Tracker:
    """Follows the objects of one clip, frame by frame; boxes are assigned within their class only.

    `high` is the score from which a box begins an object, from 0 to 1; `rate` the usual frames in a second.
    """

    def __init__(self, high: float, rate: float = 30.0) -> None:
        self.high, self.low, self.rate = high, LOW * high, rate
        self.tracks: list[Track] = []
        self._now: float | None = None
        self._numbers = count(1)

    def update(self, seconds: float, found: FoundBoxes) -> list[Tracked]:
        """Take the boxes of the next frame and return those that belong to an object, in the order of the numbers."""
        first = self._now is None
        frames = 1.0 if self._now is None else max(0.0, (seconds - self._now) * self.rate)
        self._now = seconds
        expected = [_expected(one, frames) for one in self.tracks]
        high = np.flatnonzero(found.scores >= self.high)
        low = np.flatnonzero((found.scores >= self.low) & (found.scores < self.high))
        known = [one for one in expected if one.id]
        pairs, missing, rest = _assigned(known, found, high, FIRST)
        lately = [one for one in missing if one.place >= 0]
        more, hidden, _ = _assigned(lately, found, low, SECOND)
        hidden += [one for one in missing if one.place < 0]
        once, _, rest = _assigned([one for one in expected if not one.id], found, rest, NEW)
        seen = [self._again(*one, found) for one in (*pairs, *more, *once)]
        seen += [self._new(place, found, named=first) for place in rest.tolist()]
        left = [replace(one, place=-1) for one in hidden if seconds - one.seen <= HIDDEN]
        self.tracks = _single(seen, left)
        return sorted(Tracked(one.id, one.place) for one in self.tracks if one.id and one.place >= 0)

    def _again(self, track: Track, place: int, found: FoundBoxes) -> Track:
        motion = corrected(track.motion, found.xyxy[place])
        number = track.id or next(self._numbers)
        return replace(track, id=number, motion=motion, seen=self._now or 0.0, place=place)

    def _new(self, place: int, found: FoundBoxes, *, named: bool) -> Track:
        now = self._now or 0.0
        number = next(self._numbers) if named else 0
        return Track(number, int(found.kinds[place]), start(found.xyxy[place]), now, now, place)


def _expected(track: Track, frames: float) -> Track:
    motion = track.motion if track.place >= 0 else without_growth(track.motion)
    return replace(track, motion=ahead(motion, frames))


def _boxes(tracks: Sequence[Track]) -> NDArray[np.float64]:
    return np.stack([one.motion.box() for one in tracks])


def _assigned(
    tracks: Sequence[Track], found: FoundBoxes, places: NDArray[np.int64], least: float
) -> tuple[list[tuple[Track, int]], list[Track], NDArray[np.int64]]:
    """Assign boxes to objects so that their overlaps above `least` have the largest sum.

    Return the pairs (object, place), the objects without a box, and the places without an object.
    """
    from scipy.optimize import linear_sum_assignment

    if not tracks or not len(places):
        return [], list(tracks), places
    overlaps = iou_table(_boxes(tracks), found.xyxy[places])
    alike = np.array([one.kind for one in tracks])[:, None] == found.kinds[places][None]
    gain = np.where(alike & (overlaps >= least), overlaps - least + 1e-9, 0.0)
    rows, cols = linear_sum_assignment(gain, maximize=True)
    taken = {int(row): int(col) for row, col in zip(rows, cols, strict=True) if gain[row, col] > 0}
    pairs = [(tracks[row], int(places[col])) for row, col in taken.items()]
    missing = [one for row, one in enumerate(tracks) if row not in taken]
    return pairs, missing, np.delete(places, list(taken.values()))


def _single(seen: Sequence[Track], hidden: Sequence[Track]) -> list[Track]:
    """Return the objects without the younger of two that lie on each other, one seen and one hidden."""
    if not seen or not hidden:
        return [*seen, *hidden]
    overlaps = iou_table(_boxes(seen), _boxes(hidden))
    out: set[tuple[bool, int]] = set()
    for row, col in zip(*np.nonzero(overlaps > SAME), strict=True):
        one, other = seen[row], hidden[col]
        if one.kind == other.kind:
            older = one.seen - one.began >= other.seen - other.began
            out.add((False, int(col)) if older else (True, int(row)))
    kept = [one for row, one in enumerate(seen) if (True, row) not in out]
    return kept + [one for col, one in enumerate(hidden) if (False, col) not in out]
