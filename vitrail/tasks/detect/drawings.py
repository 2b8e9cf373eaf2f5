"""Drawings of boxes: a prediction, and truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.data.boxes import Boxes, FoundBoxes, iou_table
from vitrail.metrics.box_matching import FIRST_IOU
from vitrail.plots import distinct_colours
from vitrail.plots.boxes import DrawnBox, compare_boxes, draw_boxes

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_found(image: Image, found: FoundBoxes, names: Sequence[str]) -> Image:
    """Return the image with its predicted boxes, their classes and confidences."""
    return draw_boxes(image, _found(found, names))


def draw_beside(image: Image, found: FoundBoxes, truth: Boxes, names: Sequence[str]) -> Image:
    """Return truth and prediction beside each other, with what is matched, missed and invented."""
    true = [
        DrawnBox(_corners(box), names[kind], colour, faint=bool(crowd))
        for box, kind, crowd, colour in zip(
            truth.xyxy, truth.kinds, truth.crowd, _colours(truth.kinds, names), strict=True
        )
    ]
    return compare_boxes(image, true, _found(found, names), pairs_of(found, truth))


def pairs_of(found: FoundBoxes, truth: Boxes) -> list[tuple[int, int]]:
    """Return the matched boxes as (true, found): each box takes the free object of its class that it overlaps most."""
    table = iou_table(found.xyxy, truth.xyxy)
    free, pairs = ~truth.crowd, []
    for place, kind in enumerate(found.kinds):
        row = np.where(free & (truth.kinds == kind), table[place], 0.0)
        if len(row) and row.max() >= FIRST_IOU:
            best = int(row.argmax())
            free = free & (np.arange(len(free)) != best)
            pairs.append((best, place))
    return pairs


def _found(found: FoundBoxes, names: Sequence[str]) -> list[DrawnBox]:
    colours = _colours(found.kinds, names)
    return [
        DrawnBox(_corners(box), f"{names[kind]} {score:.0%}", colour, names[kind])
        for box, kind, score, colour in zip(found.xyxy, found.kinds, found.scores, colours, strict=True)
    ]


def _colours(kinds: Any, names: Sequence[str]) -> list[tuple[int, int, int]]:
    every = distinct_colours(len(names))
    return [every[kind] for kind in kinds]


def _corners(box: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
