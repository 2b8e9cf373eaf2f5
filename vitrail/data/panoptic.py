"""Panoptic maps: every pixel belongs to one segment, an object or an area of one class, or to none. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.instances import Instances, from_runs, mask_areas

VOID = 0
"""The number of pixels that belong to no segment."""


class PanopticMap(NamedTuple):
    """The segments of one image, in its own pixels.

    `ids` (height, width) int32 is i + 1 where segment i lies, `VOID` elsewhere; `kinds` (n,) int64 are the numbers of
    the classes, `scores` (n,) float64 from 0 to 1, 1 for true ones. `crowd` (n,) bool: true segments of several objects
    that nobody told apart; None for none.
    """

    ids: NDArray[np.int32]
    kinds: NDArray[np.int64]
    scores: NDArray[np.float64]
    crowd: NDArray[np.bool_] | None = None

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """Whether each segment is a crowd: (n,)."""
        return np.zeros(len(self.kinds), np.bool_) if self.crowd is None else self.crowd

    def classes(self, void: int) -> NDArray[np.uint8]:
        """Return the class of each pixel, `void` where there is none: (height, width)."""
        every = np.array([void, *self.kinds.tolist()], np.uint8)
        classes: NDArray[np.uint8] = every[self.ids]
        return classes


class Scene(NamedTuple):
    """The truth of one image: its `things`, and the class of each pixel.

    The classes of `things` are numbered among things alone. `areas` (height, width) uint8 are numbered among all
    classes, 255 where there is none.
    """

    things: Instances
    areas: NDArray[np.uint8]


def coloured_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return numbers of segments (height, width) as COCO's colours, red first and least: (height, width, 3)."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


def painting_order(
    areas: NDArray[np.float64], crowd: NDArray[np.bool_], things: NDArray[np.bool_]
) -> list[int]:
    """Return the order in which segments (n,) are painted, the topmost last.

    Things lie on areas, single things on crowds, and then the smaller one on the larger one; of equals the later one.
    """
    order: list[int] = np.lexsort((np.arange(len(areas)), -areas, ~crowd & things, things)).tolist()
    return order


def true_map(
    instances: Instances, class_map: NDArray[np.uint8], things: NDArray[np.bool_], void: int = 255
) -> PanopticMap:
    """Return the true segments of an image: its objects, and one segment for each class of `class_map` that is stuff.

    `things` (k,) tells which classes are things; those of `instances` are numbered among them, those of the map among
    all, and `void` is none. Of objects that overlap the smaller one lies on top, and crowds lie below all. Pixels of a
    thing without an object are void. Objects without a visible pixel are left out.
    """
    ids = np.zeros(class_map.shape, np.int32)
    boxes, areas = instances.boxes, mask_areas(instances.masks)
    for place in painting_order(areas, boxes.crowd, np.ones(len(areas), np.bool_)):
        # One mask is unpacked at a time: an image of 24 megapixels has a hundred.
        ids[from_runs([instances.masks[place]], class_map.shape)[0]] = place + 1
    kinds = np.flatnonzero(things)[boxes.kinds].tolist()
    free = ids == VOID
    for kind in np.flatnonzero(np.bincount(class_map.ravel(), minlength=256)).tolist():
        if kind != void and not things[kind]:
            kinds.append(kind)
            ids[free & (class_map == kind)] = len(kinds)
    crowd = np.concatenate([boxes.crowd, np.zeros(len(kinds) - len(areas), np.bool_)])
    return _seen(PanopticMap(ids, np.array(kinds, np.int64), np.ones(len(kinds)), crowd))


def _seen(whole: PanopticMap) -> PanopticMap:
    """Return the map without segments that have no pixel, numbered anew."""
    seen = np.bincount(whole.ids.ravel(), minlength=len(whole.kinds) + 1)[1:] > 0
    if seen.all():
        return whole
    number = np.concatenate([[VOID], np.where(seen, np.cumsum(seen), VOID)]).astype(np.int32)
    return PanopticMap(number[whole.ids], whole.kinds[seen], whole.scores[seen], whole.crowds[seen])
