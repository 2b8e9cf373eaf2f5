"""Drawings of boxes: a prediction, and truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitrail.data.boxes import Boxes, FoundBoxes
from vitrail.metrics.box_matching import match_boxes
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
    return compare_boxes(image, true, _found(found, names), pairs_of(found, truth, len(names)))


def pairs_of(found: FoundBoxes, truth: Boxes, classes: int) -> list[tuple[int, int]]:
    """Return the boxes that the scores count as right at IoU 0.5, as (true, found); `found` has the best first."""
    partners = match_boxes(found, truth, classes).partner.tolist()
    return [(true, place) for place, true in enumerate(partners) if true >= 0]


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
