"""Distances between the edges of two masks: boundary F1, boundary IoU, and in mm 95 % Hausdorff and surface Dice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Flags = NDArray[np.bool_]

EDGE = 0.0075
"""Tolerance of boundary F1 as a share of the diagonal (as in the benchmark of DeepLab's authors)."""

BAND = 0.02
"""Width of the band for boundary IoU (Cheng et al. 2021, arXiv:2103.16562), as a share of the diagonal."""

MATCHED = 2.0
"""Tolerance of surface Dice in pixels."""


BITS = 64
"""Classes whose edges are dilated together, one bit each."""


class Widths(NamedTuple):
    """Tolerance of edges and width of the band inside an edge, in pixels of the Chebyshev distance."""

    edge: int
    band: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> Widths:
        """Return the widths for an image (height, width)."""
        diagonal = float(np.hypot(*size))
        return cls(max(1, round(EDGE * diagonal)), max(1, round(BAND * diagonal)))


COLUMNS = ("matched_answer", "edge_answer", "matched_truth", "edge_truth", "both", "either", "band", "area")
"""The counts of `edges` for each class: matched edge pixels and all edge pixels of both masks, the intersection and
union of the bands, and the band and area of the truth."""


def edges(answer: Mask, truth: Mask, classes: int, widths: Widths) -> NDArray[np.int64]:
    """Return the counts in `COLUMNS` for each class, in pixels: (k, 8). Both masks must be void at the same pixels.

    All classes are computed together: a pixel lies in the band of its class if another class is near, and the edges of
    up to 64 classes are dilated as bits of one integer.
    """
    edge, true_edge = other_near(answer, 1), other_near(truth, 1)
    band, true_band = other_near(answer, widths.band), other_near(truth, widths.band)
    matched, true_matched = (np.zeros(truth.shape, np.bool_) for _ in range(2))
    for first in range(0, classes, BITS):
        matched |= edge & _meets(answer, truth, true_edge, first, widths.edge)
        true_matched |= true_edge & _meets(truth, answer, edge, first, widths.edge)
    both = band & true_band & (answer == truth)

    def pixels(mask: Mask, where: Flags) -> NDArray[np.int64]:
        return np.bincount(mask[where], minlength=classes)[:classes]

    own, true, shared = pixels(answer, band), pixels(truth, true_band), pixels(truth, both)
    columns = (
        pixels(answer, matched), pixels(answer, edge), pixels(truth, true_matched), pixels(truth, true_edge),
        shared, own + true - shared, true, np.bincount(truth.ravel(), minlength=classes)[:classes],
    )  # fmt: skip
    return np.stack(columns, 1).astype(np.int64)


def other_near(mask: Mask, width: int) -> Flags:
    """Return the pixels with another class at most `width` pixels away; the image border is not an edge."""
    from scipy.ndimage import maximum_filter, minimum_filter  # slow to import, and no prediction needs it

    reach = 2 * width + 1
    near: Flags = (minimum_filter(mask, reach, mode="nearest") != mask) | (
        maximum_filter(mask, reach, mode="nearest") != mask
    )
    return near


def _meets(mask: Mask, other: Mask, edge: Flags, first: int, width: int) -> Flags:
    """Return the pixels near an edge of their own class in the other mask, for `BITS` classes from `first` on."""
    one = np.uint64(1)

    def bit(of: Mask) -> NDArray[np.uint64]:
        within = (of >= first) & (of - np.minimum(of, first) < BITS)
        return np.where(
            within, one << (of.astype(np.uint64) - np.uint64(first)) % np.uint64(BITS), np.uint64(0)
        )

    grown = np.where(edge, bit(other), np.uint64(0))
    for axis in (0, 1):
        grown = _spread(grown, width, axis)
    meets: Flags = (grown & bit(mask)) != 0
    return meets


def _spread(bits: NDArray[np.uint64], width: int, axis: int) -> NDArray[np.uint64]:
    """Return for each pixel the union of the bits at most `width` away on an axis; the step doubles each time."""
    lines = np.moveaxis(bits, axis, 0).copy()
    reach = 0
    while reach < width:
        step = min(reach + 1, width - reach)
        before = lines.copy()
        lines[step:] |= before[:-step]
        lines[:-step] |= before[step:]
        reach += step
    return np.moveaxis(lines, 0, axis)


def surface(answer: Flags, truth: Flags, spacing: tuple[float, float]) -> tuple[float, float]:
    """Return the 95 % Hausdorff distance in mm and the surface Dice of one region; both NaN if a mask has no edge."""
    from scipy.ndimage import distance_transform_edt

    edge, true_edge = inner_band(answer, 1), inner_band(truth, 1)
    if not edge.any() or not true_edge.any():
        return float("nan"), float("nan")
    to_truth = distance_transform_edt(~true_edge, sampling=spacing)[edge]
    to_answer = distance_transform_edt(~edge, sampling=spacing)[true_edge]
    reach = MATCHED * max(spacing)
    near = (to_truth <= reach).sum() + (to_answer <= reach).sum()
    hausdorff = max(np.percentile(to_truth, 95), np.percentile(to_answer, 95))
    return float(hausdorff), float(near / (len(to_truth) + len(to_answer)))


def inner_band(region: Flags, width: int) -> Flags:
    """Return the pixels of a region at most `width` pixels from its outside; the image border is not outside."""
    from scipy.ndimage import minimum_filter

    kept = minimum_filter(region.view(np.uint8), 2 * width + 1, mode="nearest")
    band: Flags = region & (kept == 0)
    return band
