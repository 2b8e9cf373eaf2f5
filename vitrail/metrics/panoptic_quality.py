"""Panoptic quality (Kirillov et al. 2019, arXiv:1801.00868, eq. 1), counted as COCO's panoptic evaluation does.

Segments of an image are paired once; a bootstrap sample weighs the counts of an image by how often it is drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Ids = NDArray[np.int32]
"""The segments of an image (height, width): i + 1 where segment i lies, 0 for void."""

COLUMNS = ("iou", "right", "invented", "missed")
"""The counts of a class: the summed IoU of right segments, the right, the invented and the missed ones."""

HALF = 0.5
"""Segments with a larger IoU are one and the same; then each has at most one partner."""

AT_ONCE = 1 << 22
"""Pixels in memory at a time."""


class SharedPixels(NamedTuple):
    """The pixels that the true and the predicted segments of an image share: `table` (m + 1, n + 1), void first.

    `true` (m,) and `found` (n,) are their classes.
    """

    table: Integers
    true: Integers
    found: Integers

    @classmethod
    def of(cls, true: tuple[Ids, Integers], found: tuple[Ids, Integers]) -> SharedPixels:
        """Return it for the segments of an image and their classes."""
        m, n = len(true[1]), len(found[1])
        counts = np.zeros((m + 1) * (n + 1), np.int64)
        flat = true[0].reshape(-1), found[0].reshape(-1)
        for start in range(0, true[0].size, AT_ONCE):
            one, other = (part[start : start + AT_ONCE].astype(np.int64) for part in flat)
            counts += np.bincount(one * (n + 1) + other, minlength=len(counts))
        return cls(counts.reshape(m + 1, n + 1), true[1], found[1])

    def by_class(self, classes: int) -> Integers:
        """Return the right, the true and the predicted pixels of each class, without void of the truth: (k, 3)."""
        known = self.table[1:]
        alike = self.true[:, None] == self.found[None]
        counts = np.zeros((classes, 3), np.int64)
        np.add.at(counts[:, 0], self.true, (known[:, 1:] * alike).sum(1))
        np.add.at(counts[:, 1], self.true, known.sum(1))
        np.add.at(counts[:, 2], self.found, known[:, 1:].sum(0))
        return counts


class SegmentPairs(NamedTuple):
    """True and predicted segments of an image in pairs, by class: `truth` and `answer` (m,).

    The number of classes stands for no true segment (invented) or no predicted one (missed). `ious` (m,) is 0 without
    a partner; `found` (m,) is the index of the predicted segment, -1 without one.
    """

    truth: Integers
    answer: Integers
    ious: Array
    found: Integers


class PanopticQuality(NamedTuple):
    """Panoptic, segmentation and recognition quality of each class (…, k): PQ is their product SQ · RQ.

    NaN for classes without a segment, neither true nor predicted; SQ is 0 for classes without a right one.
    """

    pq: Array
    sq: Array
    rq: Array


def pair_segments(shared: SharedPixels, crowd: Flags, classes: int) -> SegmentPairs:
    """Return the pairs of one image; `crowd` (n,) tells which true segments are crowds.

    Segments with an IoU above 0.5 are a pair; void pixels of the truth do not count in the union. Predictions of which
    more than half lies in void or in crowds of their class are left out if they match nothing of their class. Crowds
    are not missed. Segments without a pixel do not count.
    """
    table, true, found = shared
    own, area, void, common = table.sum(0)[1:], table.sum(1)[1:], table[0, 1:], table[1:, 1:]
    union = area[:, None] + own[None] - common - void[None]
    ious = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
    alike = true[:, None] == found[None]
    near = (ious > HALF) & ~crowd[:, None]
    right = near & alike
    outside = void + (common * (alike & crowd[:, None])).sum(0)
    left_out = ~right.any(0) & ((own == 0) | (outside > HALF * own))
    crossed = near & ~alike & ~right.any(1)[:, None] & ~right.any(0)[None] & ~left_out[None]
    rows, columns = np.nonzero(right | crossed)
    invented = np.setdiff1d(np.flatnonzero(~left_out), columns)
    missed = np.setdiff1d(np.flatnonzero(~crowd & (area > 0)), rows)
    none = np.int64(classes)
    return SegmentPairs(
        np.concatenate([true[rows], np.full(len(invented), none), true[missed]]),
        np.concatenate([found[columns], found[invented], np.full(len(missed), none)]),
        np.concatenate([ious[rows, columns], np.zeros(len(invented) + len(missed))]),
        np.concatenate([columns, invented, np.full(len(missed), -1)]).astype(np.int64),
    )


def count_segments(pairs: SegmentPairs, classes: int) -> Array:
    """Return the counts of `COLUMNS` for each class of an image: (k, 4)."""
    right = pairs.truth == pairs.answer
    columns = (
        np.bincount(pairs.truth[right], pairs.ious[right], minlength=classes + 1),
        np.bincount(pairs.truth[right], minlength=classes + 1),
        np.bincount(pairs.answer[~right], minlength=classes + 1),
        np.bincount(pairs.truth[~right], minlength=classes + 1),
    )
    return np.stack(columns, 1)[:classes].astype(np.float64)


def panoptic_quality(counts: Array) -> PanopticQuality:
    """Return the qualities of each class from counts (…, k, 4), summed over images as often as each is drawn."""
    iou, right, invented, missed = np.moveaxis(counts, -1, 0)
    whole = right + (invented + missed) / 2
    pq, rq = (
        np.divide(one, whole, out=np.full(whole.shape, np.nan), where=whole > 0) for one in (iou, right)
    )
    sq = np.divide(iou, right, out=np.where(whole > 0, 0.0, np.nan), where=right > 0)
    return PanopticQuality(pq, sq, rq)
