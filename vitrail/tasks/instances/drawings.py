"""Drawings of objects with masks: a prediction, and truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitrail.data.boxes import Boxes, FoundBoxes
from vitrail.data.instances import FoundInstances, Instances, Runs, mask_areas, mask_overlaps
from vitrail.data.mask_outlines import rings_of
from vitrail.metrics.box_matching import Shared, match_objects
from vitrail.plots import distinct_colours
from vitrail.plots.boxes import DrawnBox, compare_boxes, draw_boxes

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_found(image: Image, found: FoundInstances, names: Sequence[str]) -> Image:
    """Return the image with its predicted objects, their classes and confidences."""
    return draw_boxes(image, _found(found, names))


def draw_true(image: Image, truth: Instances, names: Sequence[str], plain: bool = False) -> Image:
    """Return the image with its true objects; `plain` leaves out the names of their classes."""
    return draw_boxes(image, _true(truth, names, plain), weight=2.0 if plain else 1.0)


def draw_beside(
    image: Image,
    found: FoundInstances,
    truth: Instances,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> Image:
    """Return truth and prediction beside each other, with what is matched, missed and invented; see `compare_boxes`."""
    return compare_boxes(image, _true(truth, names, False), _found(found, names), pairs)


def pairs_of(found: FoundInstances, truth: Instances, classes: int) -> list[tuple[int, int]]:
    """Return the objects that the scores count as right at IoU 0.5 of masks, as (true, found); the best come first."""
    overlaps = mask_overlaps(found.masks, truth.masks, truth.boxes.crowd)
    shared = Shared(overlaps, mask_areas(found.masks), mask_areas(truth.masks))
    partners = match_objects(found.boxes[1:], truth.boxes[1:], shared, classes).partner.tolist()
    return [(true, place) for place, true in enumerate(partners) if true >= 0]


def _found(found: FoundInstances, names: Sequence[str]) -> list[DrawnBox]:
    texts = [
        f"{names[kind]} {score:.0%}"
        for kind, score in zip(found.boxes.kinds, found.boxes.scores, strict=True)
    ]
    return _drawn(found.boxes, found.masks, names, texts)


def _true(truth: Instances, names: Sequence[str], plain: bool) -> list[DrawnBox]:
    texts = ["" if plain else names[kind] for kind in truth.boxes.kinds.tolist()]
    drawn = _drawn(truth.boxes, truth.masks, names, texts)
    return [one._replace(faint=bool(crowd)) for one, crowd in zip(drawn, truth.boxes.crowd, strict=True)]


def _drawn(
    boxes: Boxes | FoundBoxes, masks: Sequence[Runs], names: Sequence[str], texts: Sequence[str]
) -> list[DrawnBox]:
    colours = distinct_colours(len(names))
    columns = zip(boxes.xyxy.tolist(), boxes.kinds.tolist(), masks, texts, strict=True)
    return [
        DrawnBox(tuple(corners), text, colours[kind], names[kind], shape=rings_of(mask))
        for corners, kind, mask, text in columns
    ]
