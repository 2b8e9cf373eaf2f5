"""Things and the classes of pixels as one map of segments (Kirillov et al. 2019, arXiv:1901.02446, §3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.instances import FoundInstances, from_runs
from vitrail.data.panoptic import PanopticMap

VOID = 255
"""The class of pixels that have none."""


class Rules(NamedTuple):
    """How things and areas are merged.

    `things` (t,) are the classes of things among all classes, `classes` the number of all. An object of which better
    ones cover more than `hidden` is left out, and so is an area of fewer than `least` pixels.
    """

    things: tuple[int, ...]
    classes: int
    hidden: float
    least: int


def things_first(found: FoundInstances, areas: NDArray[np.uint8], rules: Rules) -> PanopticMap:
    """Return the segments of an image: things by their confidence, then the areas of the other classes around them.

    `areas` (height, width) is the class of every pixel, `VOID` for none. Pixels of the class of a thing where no object
    was found belong to no segment. The classes of `found` are numbered among the things alone.
    """
    ids = np.zeros(areas.shape, np.int32)
    kinds, scores = [], []
    for mask, kind, score in zip(
        found.masks, found.boxes.kinds.tolist(), found.boxes.scores.tolist(), strict=True
    ):
        own = from_runs([mask], mask.size)[0]
        visible = own & (ids == 0)
        if not own.any() or visible.sum() < (1 - rules.hidden) * own.sum() or not visible.any():
            continue
        kinds.append(rules.things[kind])
        scores.append(score)
        ids[visible] = len(kinds)
    free = np.where(ids == 0, areas, VOID)
    sizes = np.bincount(free.ravel(), minlength=VOID + 1)
    for kind in range(rules.classes):
        if kind in rules.things or not sizes[kind] or sizes[kind] < rules.least:
            continue
        kinds.append(kind)
        scores.append(1.0)
        ids[free == kind] = len(kinds)
    return PanopticMap(ids, np.array(kinds, np.int64), np.array(scores, np.float64))
