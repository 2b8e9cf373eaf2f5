"""Which predicted boxes of an image are right, as COCO matches them (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

THRESHOLDS: tuple[float, ...] = tuple(0.5 + 0.05 * i for i in range(10))
"""Overlaps (IoU) from which a box is right."""

MOST_FOUND = 100
"""Predicted boxes of a class in an image that count, the most confident first (COCO's maxDets)."""

ALL, SMALL, MEDIUM, LARGE = range(4)

SIDES = (32.0, 96.0)
"""Sides, in pixels, of the squares whose areas divide small, medium and large objects."""

_FAR = 1e10


class Matches(NamedTuple):
    """The predicted boxes of one image, class by class, the most confident first, and which of them are right.

    `scores` and `kinds` (d,); `places` (d,) their numbers among the predicted boxes of the image; `right` and `ignored`
    (d, area, threshold); `objects` (k, area), the numbers of true boxes that count. The areas are all, small, medium
    and large.
    """

    scores: NDArray[np.float64]
    kinds: NDArray[np.int64]
    places: NDArray[np.int64]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


class Answer(NamedTuple):
    """Predicted boxes: overlaps with the true boxes (d, n), areas (d,), classes (d,) and scores (d,)."""

    overlaps: NDArray[np.float64]
    areas: NDArray[np.float64]
    kinds: NDArray[np.int64]
    scores: NDArray[np.float64]


class Objects(NamedTuple):
    """True boxes: areas (n,), classes (n,), and which are crowds (n,)."""

    areas: NDArray[np.float64]
    kinds: NDArray[np.int64]
    crowd: NDArray[np.bool_]


def area_ranges() -> NDArray[np.float64]:
    """Return the smallest and the largest area of each range, in square pixels: (area, 2)."""
    small, large = (side**2 for side in SIDES)
    return np.array([(0, _FAR), (0, small), (small, large), (large, _FAR)], np.float64)


def match(answer: Answer, objects: Objects, classes: int) -> Matches:
    """Return which predicted boxes of an image are right, in every range of areas and at every threshold."""
    ranges = area_ranges()
    outside = (objects.areas[:, None] < ranges[:, 0]) | (objects.areas[:, None] > ranges[:, 1])
    ignored = outside | objects.crowd[:, None]  # (n, area)
    counts = np.stack([(~ignored[objects.kinds == kind]).sum(0) for kind in range(classes)])
    order = np.argsort(-answer.scores, kind="stable")
    parts = [order[answer.kinds[order] == kind][:MOST_FOUND] for kind in range(classes)]
    flags = [
        _of_class(answer, objects, ignored, places, np.flatnonzero(objects.kinds == kind))
        for kind, places in enumerate(parts)
    ]
    places = np.concatenate(parts)
    far = (answer.areas[places, None] < ranges[:, 0]) | (answer.areas[places, None] > ranges[:, 1])
    right, beside = (np.concatenate(part) for part in zip(*flags, strict=True))
    beside = np.where(right, beside, far[:, :, None])
    return Matches(answer.scores[places], answer.kinds[places], places, right & ~beside, beside, counts)


def _of_class(
    answer: Answer, objects: Objects, ignored: NDArray[np.bool_], places: Array, own: Array
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which boxes of one class have an object, and which have one that does not count: (d, area, threshold)."""
    levels = np.minimum(np.array(THRESHOLDS), 1 - 1e-10)
    ranges = ignored.shape[1] if ignored.ndim == 2 else 4
    found = np.zeros((len(places), ranges, len(levels)), np.bool_)
    beside = np.zeros_like(found)
    if not len(own) or not len(places):
        return found, beside
    crowd, aside = objects.crowd[own], ignored[own].T[:, None]  # (n,), (area, 1, n)
    taken = np.zeros((ranges, len(levels), len(own)), np.bool_)
    table = answer.overlaps[np.ix_(places, own)]
    near = table.max(1) >= levels[0]
    for turn in np.flatnonzero(near).tolist():
        row = table[turn]
        free = (~taken | crowd) & (row >= levels[:, None])
        counted, other = free & ~aside, free & aside
        some, rest = counted.any(-1), other.any(-1)
        best = np.where(some, _last_best(counted, row), _last_best(other, row))
        has = some | rest
        found[turn], beside[turn] = has, has & ~some
        area, level = np.nonzero(has)
        taken[area, level, best[has]] = True
    return found, beside


def _last_best(free: NDArray[np.bool_], row: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the free object with the largest overlap; of equal ones the last, as COCO's loop ends with it."""
    values = np.where(free, row, -1.0)[..., ::-1]
    places: NDArray[np.int64] = free.shape[-1] - 1 - values.argmax(-1)
    return places
