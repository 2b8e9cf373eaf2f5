"""Boxes of objects: true ones, predicted ones, and how much they overlap. No torch.

A box is (left, top, right, bottom) in pixels, as in vitrail/data/view.py: the first pixel of a side covers 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

VISIBLE = 0.2
"""A box stays in a view if its centre is visible and at least this share of its area; rotation moves both apart."""

LEAST_SIDE = 1.0
"""Boxes with a shorter side in a view, in pixels, are left out: nothing of the object can be seen."""


SMALL, MEDIUM = 32, 96
"""COCO calls boxes below SMALL² square pixels small, and those above MEDIUM² large."""


class Boxes(NamedTuple):
    """The true boxes of one image.

    `xyxy` (n, 4) float64 in pixels of the image; `kinds` (n,) int64, the numbers of the classes; `crowd` (n,) bool: a
    group of objects or a difficult one, which is neither learned nor missed, and whose predictions are not invented.
    """

    xyxy: NDArray[np.float64]
    kinds: NDArray[np.int64]
    crowd: NDArray[np.bool_]


class FoundBoxes(NamedTuple):
    """The predicted boxes of one image, the highest score first.

    `xyxy` (n, 4) float64 in pixels of the original; `kinds` (n,) int64; `scores` (n,) float64 from 0 to 1.
    """

    xyxy: NDArray[np.float64]
    kinds: NDArray[np.int64]
    scores: NDArray[np.float64]


def make_boxes(xyxy: Any = (), kinds: Any = (), crowd: Any = None) -> Boxes:
    """Return `Boxes` of plain sequences or arrays; no box is a crowd by default."""
    corners = np.asarray(xyxy, np.float64).reshape(-1, 4)
    flags = np.zeros(len(corners), np.bool_) if crowd is None else np.asarray(crowd, np.bool_).reshape(-1)
    return Boxes(corners, np.asarray(kinds, np.int64).reshape(-1), flags)


def make_found(xyxy: Any = (), kinds: Any = (), scores: Any = ()) -> FoundBoxes:
    """Return `FoundBoxes` of plain sequences or arrays, sorted by score; equal scores keep their order."""
    values = np.asarray(scores, np.float64).reshape(-1)
    order = by_score(values)
    corners = np.asarray(xyxy, np.float64).reshape(-1, 4)
    return FoundBoxes(corners[order], np.asarray(kinds, np.int64).reshape(-1)[order], values[order])


def by_score(scores: Any) -> NDArray[np.int64]:
    """Return the places of scores (n,), the highest first; equal scores keep their order."""
    order: NDArray[np.int64] = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return order


def take_boxes(boxes: Boxes, places: Any) -> Boxes:
    """Return the boxes at these places, given as indices or as a mask."""
    return Boxes(boxes.xyxy[places], boxes.kinds[places], boxes.crowd[places])


def take_found(found: FoundBoxes, places: Any) -> FoundBoxes:
    """Return the predicted boxes at these places, given as indices or as a mask."""
    return FoundBoxes(found.xyxy[places], found.kinds[places], found.scores[places])


def join_boxes(several: Sequence[Boxes]) -> Boxes:
    """Return the boxes of several sets in one, in their order."""
    if not several:
        return make_boxes()
    return Boxes(*(np.concatenate(column) for column in zip(*several, strict=True)))


def box_areas(xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """Return the areas (n,) of boxes (n, 4) in square pixels; 0 if a side has no length."""
    sides = np.clip(xyxy[:, 2:] - xyxy[:, :2], 0, None)
    areas: NDArray[np.float64] = (sides[:, 0] * sides[:, 1]).astype(np.float64)
    return areas


def overlap_table(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the common areas (n, m) of boxes (n, 4) and (m, 4), in square pixels."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    common: NDArray[np.float64] = (sides[..., 0] * sides[..., 1]).astype(np.float64)
    return common


def iou_table(
    a: NDArray[Any], b: NDArray[Any], crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the intersection over union (n, m) of boxes (n, 4) and (m, 4); 0 where both have no area.

    Where `crowd` (m,) is true, the common area is divided by the area of the box of `a` alone, as COCO does: a
    prediction inside a group of objects belongs to the group.
    """
    common, own = overlap_table(a, b), box_areas(a)[:, None]
    whole = own + box_areas(b)[None] - common
    if crowd is not None:
        whole = np.where(crowd[None], own, whole)
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def clip_to(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Return boxes clipped at the border of their image (height, width), without those that lie outside."""
    far = np.array([*size[::-1], *size[::-1]], np.float64)
    xyxy = np.clip(boxes.xyxy, 0, far)
    return take_boxes(boxes._replace(xyxy=xyxy), box_areas(xyxy) > 0)


def view_boxes(boxes: Boxes, view: Any) -> Boxes:
    """Return the boxes that a `View` of the image shows, clipped, in pixels of its input.

    A box is kept if its centre and `VISIBLE` of its area are inside, and no side is shorter than `LEAST_SIDE`.
    """
    boxes = clip_to(boxes, view.geometry.original)
    if not len(boxes.xyxy):
        return boxes
    xyxy, shares = view.boxes(boxes.xyxy)
    centres = view.points((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2)
    far = np.array(view.geometry.size[::-1], np.float64)
    kept = np.all((centres >= 0) & (centres <= far), 1) & (shares >= VISIBLE)
    kept &= np.all(xyxy[:, 2:] - xyxy[:, :2] >= LEAST_SIDE, 1)
    return take_boxes(boxes._replace(xyxy=np.asarray(xyxy, np.float64)), kept)
