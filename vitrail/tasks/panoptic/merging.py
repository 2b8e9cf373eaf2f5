"""From outputs to one map of segments: things on areas (Kirillov et al. 2019, arXiv:1901.02446, §3), or queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.boxes import make_found
from vitrail.data.instances import FoundInstances, boxes_around, from_runs, to_runs
from vitrail.data.panoptic import PanopticMap
from vitrail.data.view import maps_in_original
from vitrail.tasks.query_merging import MergeRules, merge_queries

OUTSIDE = -1e4
"""The logit of a mask outside of the input."""

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


def of_queries(
    output: Mapping[str, Tensor], geometry: Geometry, threshold: float, rules: Rules
) -> PanopticMap:
    """Return the segments of one image from queries that find all classes: outputs without their batch axis."""

    def resized(one: Tensor) -> Tensor:
        return maps_in_original(geometry, one[None].cpu(), OUTSIDE)[0]

    stuff = set(range(rules.classes)) - set(rules.things)
    merge = MergeRules(threshold, overlap=1 - rules.hidden, stuff=stuff)
    found = merge_queries(output["logits"].cpu(), output["masks"], resized, geometry.original, merge)
    ids = (found.numbers + 1).numpy().astype(np.int32)
    sizes = np.bincount(ids.ravel(), minlength=len(found.segments) + 1)
    small = [
        one.kind in stuff and size < rules.least for one, size in zip(found.segments, sizes[1:], strict=True)
    ]
    kept = [one for one, out in zip(found.segments, small, strict=True) if not out]
    numbers = np.concatenate([[0], np.where(small, 0, np.cumsum(~np.array(small, np.bool_)))]).astype(
        np.int32
    )
    kinds = np.array([one.kind for one in kept], np.int64)
    return PanopticMap(numbers[ids], kinds, np.array([one.score for one in kept], np.float64))


def things_of(found: PanopticMap, rules: Rules) -> FoundInstances:
    """Return the segments that are things as objects, their classes numbered among things."""
    places = {kind: place for place, kind in enumerate(rules.things)}
    numbers = [number for number, kind in enumerate(found.kinds.tolist(), 1) if kind in places]
    order = sorted(numbers, key=lambda number: -found.scores[number - 1])
    masks = tuple(to_runs((found.ids == number)[None])[0] for number in order)
    kinds = [places[int(found.kinds[number - 1])] for number in order]
    boxes = make_found(boxes_around(masks), kinds, [found.scores[number - 1] for number in order])
    return FoundInstances(boxes, masks)


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
