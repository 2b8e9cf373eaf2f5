"""How near the edges of two masks lie: boundary F1, boundary IoU, and in mm the 95 % Hausdorff and surface Dice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, maximum_filter, minimum_filter

Mask = NDArray[np.uint8]
Flags = NDArray[np.bool_]

EDGE = 0.0075
"""How far edges may lie apart to match, in parts of the diagonal (as in the benchmark of DeepLab's authors)."""

BAND = 0.02
"""Width of the band inside an edge of which boundary IoU is (Cheng et al. 2021, arXiv:2103.16562), in diagonals."""

MATCHED = 2.0
"""Edges that lie no further apart than so many pixels count as equal in the surface Dice."""


class Widths(NamedTuple):
    """Pixels that edges may lie apart, and pixels of the band inside an edge; distances are those of a king's moves."""

    edge: int
    band: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> Widths:
        """Return the widths for an image (height, width)."""
        diagonal = float(np.hypot(*size))
        return cls(max(1, round(EDGE * diagonal)), max(1, round(BAND * diagonal)))


COLUMNS = ("matched_answer", "edge_answer", "matched_truth", "edge_truth", "both", "either", "band", "area")
"""What `edges` counts of each class: edge pixels near the other's edge, of all edge pixels; bands; the truth's band."""


def edges(answer: Mask, truth: Mask, classes: int, widths: Widths) -> NDArray[np.int64]:
    """Return what `COLUMNS` names of each class, in pixels: (k, 8). Both masks are void at the same pixels."""
    found = np.zeros((classes, len(COLUMNS)), np.int64)
    boxes = [find_objects(mask.astype(np.int32) + 1, classes) for mask in (answer, truth)]
    boxes = [[*own, *[None] * (classes - len(own))] for own in boxes]
    for place in range(classes):
        window = _around([own[place] for own in boxes], widths.band + 1, truth.shape)
        if window is None:
            continue
        one, other = answer[window] == place, truth[window] == place
        edge, true_edge = inner_band(one, 1), inner_band(other, 1)
        near, true_near = (_grown(rim, widths.edge) for rim in (edge, true_edge))
        band, true_band = inner_band(one, widths.band), inner_band(other, widths.band)
        found[place] = [
            (edge & true_near).sum(), edge.sum(), (true_edge & near).sum(), true_edge.sum(),
            (band & true_band).sum(), (band | true_band).sum(), true_band.sum(), other.sum(),
        ]  # fmt: skip
    return found


def surface(answer: Flags, truth: Flags, spacing: tuple[float, float]) -> tuple[float, float]:
    """Return the 95 % Hausdorff distance in mm and the surface Dice of one region, both NaN where one has no edge."""
    edge, true_edge = inner_band(answer, 1), inner_band(truth, 1)
    if not edge.any() or not true_edge.any():
        return float("nan"), float("nan")
    there = distance_transform_edt(~true_edge, sampling=spacing)[edge]
    back = distance_transform_edt(~edge, sampling=spacing)[true_edge]
    reach = MATCHED * max(spacing)
    near = (there <= reach).sum() + (back <= reach).sum()
    return float(max(np.percentile(there, 95), np.percentile(back, 95))), float(
        near / (len(there) + len(back))
    )


def inner_band(region: Flags, width: int) -> Flags:
    """Return the pixels of a region that lie at most `width` pixels from what is outside; the image's rim is none."""
    kept = minimum_filter(region.view(np.uint8), 2 * width + 1, mode="nearest")
    band: Flags = region & (kept == 0)
    return band


def _grown(flags: Flags, width: int) -> Flags:
    grown: Flags = maximum_filter(flags.view(np.uint8), 2 * width + 1, mode="constant") > 0
    return grown


def _around(
    boxes: list[tuple[slice, slice] | None], margin: int, size: tuple[int, ...]
) -> tuple[slice, slice] | None:
    """Return the window that holds some boxes with a margin, cut off at the image."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    rows, cols = (
        slice(
            max(0, min(box[axis].start for box in there) - margin),
            min(size[axis], max(box[axis].stop for box in there) + margin),
        )
        for axis in (0, 1)
    )
    return rows, cols
