"""Match the predicted objects of one image with its true ones, as COCO does (Lin et al. 2014, arXiv:1405.0312).

Boxes or masks: what matters are their overlaps and areas. Objects are matched once, for all IoU thresholds and size
ranges together: the state of each is one bit of an integer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Found = tuple[Array, Integers, Array]
"""Predicted boxes of an image: corners (n, 4) in pixels, classes (n,), scores (n,)."""

Truths = tuple[Array, Integers, Flags]
"""True boxes of an image: corners (n, 4) in pixels, classes (n,), whether each is a crowd (n,)."""


class Shared(NamedTuple):
    """What predicted and true objects of one image share: IoU `ious` (n, m), and the areas of both, (n,) and (m,).

    Areas are in square pixels. For a crowd the common area is divided by that of the prediction, not by the union.
    """

    ious: Array
    found: Array
    true: Array


THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The IoU thresholds of COCO; the first one decides whether an object is right in precision, recall and confusion."""

FIRST_IOU = 0.5
"""The first of the IoU thresholds."""

SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Size range → its smallest and its largest area in square pixels, both included."""

MOST = 100
"""Average precision takes the best 100 objects of each class in an image, as COCO's `maxDets` does."""

_EACH = len(THRESHOLDS)
_ONE = (1 << _EACH) - 1
_EVERY = (1 << _EACH * len(SIZES)) - 1


def bit(size: str, threshold: int) -> int:
    """Return the place of the bit of a size range and the index of an IoU threshold."""
    return tuple(SIZES).index(size) * _EACH + threshold


class MatchedBoxes(NamedTuple):
    """The predicted objects of one image with the highest score first, and what each is by IoU threshold and size.

    `kinds`, `scores`, `ranks` are (n,); a rank is the place among the objects of the same class. Bit `bit(size, t)` of
    `right` (n,) tells whether a true object of its class was matched, that of `ignored` (n,) whether the prediction
    counts neither as right nor as wrong. `partner` (n,) is the index of the true object at IoU 0.5, -1 without one.
    `truths` (k, sizes) counts the true objects that can be missed.
    """

    kinds: Integers
    scores: Array
    ranks: Integers
    right: Integers
    ignored: Integers
    partner: Integers
    truths: Integers


def match_boxes(found: Found, truths: Truths, classes: int) -> MatchedBoxes:
    """Return the matches of the predicted boxes of one image."""
    return match_objects(found[1:], truths[1:], share_boxes(found, truths), classes)


def share_boxes(found: Found, truths: Truths) -> Shared:
    """Return overlaps and areas of the predicted and the true boxes of one image."""
    return Shared(ious(found[0], truths[0], truths[2]), areas(found[0]), areas(truths[0]))


def match_objects(
    found: tuple[Integers, Array], truths: tuple[Integers, Flags], shared: Shared, classes: int
) -> MatchedBoxes:
    """Return the matches of the predicted objects (classes, scores) of one image with the true ones (classes, crowds).

    In the order of scores each prediction takes the free true object of its class with the largest IoU of at least the
    threshold. True objects outside the size range, and crowds, are taken only if no other is left, and then the
    prediction is ignored; a crowd is taken many times. Predictions outside the size range that match nothing are
    ignored.
    """
    order = np.argsort(-found[1], kind="stable")
    kinds, scores = found[0][order], found[1][order]
    own = _inside(shared.true) & ~truths[1][:, None]
    matching = _Matching(_bits(own), truths[1])
    overlaps = np.where(kinds[:, None] == truths[0][None], shared.ious[order], 0.0)
    right, ignored, partner = matching.run(overlaps)
    outside = ~_bits(_inside(shared.found[order])) & _EVERY
    ignored |= outside & ~right
    counts = np.zeros((classes, len(SIZES)), np.int64)
    np.add.at(counts, truths[0], own.astype(np.int64))
    return MatchedBoxes(kinds, scores, _ranks(kinds), right, ignored, partner, counts)


def no_boxes(classes: int) -> MatchedBoxes:
    """Return the matches of an image without boxes."""
    corners, whole = np.zeros((0, 4)), np.zeros(0, np.int64)
    return match_boxes((corners, whole, np.zeros(0)), (corners, whole, np.zeros(0, np.bool_)), classes)


def areas(corners: Array) -> Array:
    """Return the areas (n,) of boxes (n, 4) in square pixels."""
    area: Array = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return area


def ious(found: Array, true: Array, crowd: Flags) -> Array:
    """Return the intersection over union of boxes (n, 4) and (m, 4): (n, m).

    For a crowd the common area is divided by the area of the predicted box alone.
    """
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    sides = np.clip(high - low, 0.0, None)
    common = sides[..., 0] * sides[..., 1]
    own = areas(found)[:, None]
    whole = np.where(crowd[None], own, own + areas(true)[None] - common)
    overlap: Array = np.divide(common, whole, out=np.zeros_like(common), where=common > 0)
    return overlap


class _Matching:
    """The state of the true objects of one image: `free` and `real` are integers with one bit by threshold and size."""

    def __init__(self, real: Integers, crowd: Flags) -> None:
        self.real: list[int] = real.tolist()
        self.crowd: list[bool] = crowd.tolist()
        self.free = [_EVERY] * len(self.real)

    def run(self, overlaps: Array) -> tuple[Integers, Integers, Integers]:
        """Match all predictions in order; return `right`, `ignored` and `partner` of each."""
        right, ignored, partner = (np.full(len(overlaps), start, np.int64) for start in (0, 0, -1))
        for one, candidates in _candidates(overlaps):
            hits, taken, best = self._take(candidates)
            right[one], partner[one] = hits, best
            ignored[one] = self._ignore(candidates, _EVERY & ~hits) if taken != hits else 0
        return right, ignored, partner

    def _take(self, candidates: list[tuple[int, int]]) -> tuple[int, int, int]:
        """Return the bits where a real object is taken, those of all candidates, and the object taken at 0.5."""
        hits, possible, partner = 0, 0, -1
        for place, near in candidates:
            possible |= near
            new = near & self.real[place] & self.free[place] & ~hits
            hits |= new
            self.free[place] &= ~new
            partner = place if new & 1 else partner
        return hits, possible, partner

    def _ignore(self, candidates: list[tuple[int, int]], left: int) -> int:
        """Return the bits where only an object that does not count is taken."""
        ignored = 0
        for place, near in candidates:
            new = near & ~self.real[place] & left & ~ignored
            if not self.crowd[place]:
                new &= self.free[place]
                self.free[place] &= ~new
            ignored |= new
        return ignored


def _candidates(overlaps: Array) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return for each prediction near a true object (object, bits of the thresholds reached), the largest IoU first.

    Of equal overlaps the later true object comes first, as in COCO.
    """
    rows, places = np.nonzero(overlaps >= THRESHOLDS[0])
    values = overlaps[rows, places]
    order = np.lexsort((-places, -values, rows))
    reached = np.searchsorted(THRESHOLDS, values, side="right")
    repeated = sum(1 << _EACH * i for i in range(len(SIZES)))
    bits = [((1 << count) - 1) * repeated for count in range(_EACH + 1)]
    grouped: dict[int, list[tuple[int, int]]] = {}
    for row, place, count in zip(*(part[order].tolist() for part in (rows, places, reached)), strict=True):
        grouped.setdefault(row, []).append((place, bits[count]))
    return list(grouped.items())


def _inside(area: Array) -> Flags:
    """Return which size ranges objects of these areas lie in: (n, sizes)."""
    low, high = np.array(list(SIZES.values())).T
    inside: Flags = (area[:, None] >= low) & (area[:, None] <= high)
    return inside


def _bits(sizes: Flags) -> Integers:
    """Return size ranges (n, sizes) as bits of all thresholds: (n,)."""
    each = np.array([_ONE << _EACH * i for i in range(len(SIZES))], np.int64)
    bits: Integers = (sizes * each).sum(1, dtype=np.int64)
    return bits


def _ranks(kinds: Integers) -> Integers:
    """Return the place of each object among those of its class: (n,)."""
    order = np.argsort(kinds, kind="stable")
    ordered = kinds[order]
    ranks = np.empty_like(kinds)
    ranks[order] = np.arange(len(kinds)) - np.searchsorted(ordered, ordered, side="left")
    return ranks
