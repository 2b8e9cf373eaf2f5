"""How well the edges of two masks of one object agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.data.instances import Runs, boxes_around, from_runs
from vitrail.tasks.segment.surfaces import Widths, inner_band

Flags = NDArray[np.bool_]


def boundary_ious(found: Sequence[Runs], true: Sequence[Runs]) -> NDArray[np.float64]:
    """Return the IoU of the bands inside the edges of pairs of masks: (n,); 1 if both are empty.

    A band is 2 % of the diagonal of the image wide (Cheng et al. 2021, arXiv:2103.16562); the border of the image is no
    edge. Masks are unpacked pair by pair, so that the memory of two is needed.
    """
    return np.array([_boundary_iou(*pair) for pair in zip(found, true, strict=True)], np.float64)


def _boundary_iou(found: Runs, true: Runs) -> float:
    width = Widths.of(true.size).band
    window = _window([found, true], true.size)
    bands = [inner_band(_cut(one, window), width) for one in (found, true)]
    either = int((bands[0] | bands[1]).sum())
    return int((bands[0] & bands[1]).sum()) / either if either else float(found == true)


def _window(masks: Sequence[Runs], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns around all masks, with one pixel more on each side inside the image."""
    around = boxes_around(masks).astype(int)
    around = around[(around[:, 2:] > around[:, :2]).all(1)]
    if not len(around):
        return slice(0, 0), slice(0, 0)
    (left, top), (right, bottom) = around[:, :2].min(0) - 1, around[:, 2:].max(0) + 1
    return slice(max(0, top), min(size[0], bottom)), slice(max(0, left), min(size[1], right))


def _cut(mask: Runs, window: tuple[slice, slice]) -> Flags:
    return np.ascontiguousarray(from_runs([mask], mask.size)[0][window])
