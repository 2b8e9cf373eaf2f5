"""Masks in a view of their image: how much of each cell of the input every object covers. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from vitrail.data.instances import CELL, Runs, boxes_around, cut_mask

_FULL = 255

Affine = NDArray[np.float64]
"""A map of points as (2, 3)."""


class Cover(NamedTuple):
    """What a view shows of masks.

    `cells` (n, rows, cols) uint8 is the share of each cell of `CELL` input pixels that a mask covers, 255 for all of
    it; where sides are no multiples of `CELL`, the last cell is that of the pixels that are left. `seen` (n, 4) are the
    boxes around the visible pixels in the input, zeros where there are none.
    """

    cells: NDArray[np.uint8]
    seen: NDArray[np.float64]


def cover_in_view(masks: Sequence[Runs], view: Any) -> Cover:
    """Return what a view shows of masks of its original: each input pixel is the mask's at its centre, as in `View`."""
    rows, cols = view.geometry.size
    forward = _affine(view.points(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    back = _inverse(forward)
    frame = _frame(view.geometry)
    cells = np.zeros((len(masks), -(-rows // CELL), -(-cols // CELL)), np.uint8)
    seen = np.zeros((len(masks), 4))
    extents = boxes_around(masks)
    for place, (mask, extent) in enumerate(zip(masks, extents, strict=True)):
        window = _window(extent, forward, (rows, cols))
        if window is None:
            continue
        left, top = window[:2]
        shown = _warped(mask, extent, back, window)
        if frame is not None:
            shown = ImageChops.darker(shown, frame.crop(window))
        around = shown.getbbox()
        if around is None:
            continue
        seen[place] = np.add(around, (left, top, left, top))
        small = np.asarray(shown.reduce(CELL))
        down, across = top // CELL, left // CELL
        cells[place, down : down + small.shape[0], across : across + small.shape[1]] = small
    return Cover(cells, seen)


def _affine(points: NDArray[np.floating[Any]]) -> Affine:
    """Return the map from where it sends (0, 0), (1, 0) and (0, 1)."""
    start, right, down = points
    return np.stack([right - start, down - start, start], 1).astype(np.float64)


def _inverse(matrix: Affine) -> Affine:
    whole: Affine = np.linalg.inv(np.vstack([matrix, (0.0, 0.0, 1.0)]))[:2]
    return whole


def _frame(geometry: Any) -> Image.Image | None:
    """Return which pixels of an augmented input show the input before it, and no padding; None if all do."""
    if geometry.moved is None:
        return None
    rows, cols = geometry.size
    back = _inverse(np.asarray(geometry.moved, np.float64))
    whole = Image.new("L", (cols, rows), _FULL)
    return whole.transform((cols, rows), Image.Transform.AFFINE, back.ravel().tolist())


def _window(
    extent: NDArray[np.float64], forward: Affine, size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return the whole cells of the input around a box of the original, clipped at the border; None outside it."""
    x, y = extent[[0, 2, 0, 2]], extent[[1, 1, 3, 3]]
    if x[0] >= x[1] or y[0] >= y[2]:
        return None
    at = forward[:, :2] @ np.stack([x, y]) + forward[:, 2:]
    low = np.floor(at.min(1) / CELL).astype(int) * CELL
    high = np.ceil(at.max(1) / CELL).astype(int) * CELL
    left, top = np.maximum(low, 0).tolist()
    right, bottom = np.minimum(high, size[::-1]).tolist()
    return (left, top, right, bottom) if left < right and top < bottom else None


def _warped(
    mask: Runs, extent: NDArray[np.float64], back: Affine, window: tuple[int, int, int, int]
) -> Image.Image:
    """Return a window of the input with the mask in it, 0 or 255."""
    left, top, right, bottom = extent.astype(int).tolist()
    own = Image.fromarray(cut_mask(mask, (left, top, right, bottom)) * np.uint8(_FULL))
    at = back.copy()
    at[:, 2] += at[:, :2] @ np.array(window[:2], np.float64) - (left, top)
    size = (window[2] - window[0], window[3] - window[1])
    return own.transform(size, Image.Transform.AFFINE, at.ravel().tolist())
