"""Average precision of boxes over many images, as COCO computes it, also for many bootstrap samples in one pass.

A bootstrap sample weighs the matched boxes of an image by how often the image is drawn, so nothing is matched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.box_matching import MOST, SIZES, THRESHOLDS, MatchedBoxes, bit, no_boxes

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which precision is read off."""

AT_ONCE = 1 << 20
"""Numbers in memory at a time for a class: bootstrap samples × boxes. More would not fit into the CPU cache."""


class BoxAP(NamedTuple):
    """Average precision and largest recall, both (draws, k, thresholds); NaN for classes without a true box."""

    precision: Array
    recall: Array

    def mean(self) -> Array:
        """Return mAP over the classes with a true box and all thresholds, (draws,); NaN without such a class."""
        return mean_of_classes(self.precision.mean(2))

    def at(self, threshold: int) -> Array:
        """Return mAP at one IoU threshold, given by its index: (draws,)."""
        return mean_of_classes(self.precision[..., threshold])

    def mean_recall(self) -> Array:
        """Return average recall (AR) over classes and thresholds: (draws,)."""
        return mean_of_classes(self.recall.mean(2))


def mean_of_classes(values: Array) -> Array:
    """Return the mean over the classes that are not NaN: (…, k) -> (…); NaN if all are."""
    known = np.isfinite(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


class BoxSet(NamedTuple):
    """The matched boxes of many images in one table; `image` (n,) is the index of the image of each box.

    `truths` is (images, k, sizes); the other columns are those of `MatchedBoxes`.
    """

    image: Integers
    kinds: Integers
    scores: Array
    ranks: Integers
    right: Integers
    ignored: Integers
    truths: Integers

    @classmethod
    def of(cls, images: Sequence[MatchedBoxes], classes: int) -> BoxSet:
        """Return the boxes of images in their order."""
        counts = [len(one.scores) for one in images]
        columns = list(zip(*(images or [no_boxes(classes)]), strict=True))
        kinds, scores, ranks, right, ignored = (np.concatenate(column) for column in columns[:5])
        truths = np.array([one.truths for one in images], np.int64).reshape(-1, classes, len(SIZES))
        return cls(np.repeat(np.arange(len(images)), counts), kinds, scores, ranks, right, ignored, truths)


def average_precision(boxes: BoxSet, weights: Array | None = None, size: str = "all") -> BoxAP:
    """Return average precision of each class at each IoU threshold, for boxes of one size range.

    `weights` (draws, images) are whole numbers, how often each image is drawn; None takes each image once. The best
    `MOST` boxes of a class in an image count. Precision is interpolated at 101 recalls. Equal scores are taken in the
    order of images.
    """
    images, classes = boxes.truths.shape[:2]
    each = np.ones((1, images)) if weights is None else weights
    shape = (len(each), classes, len(THRESHOLDS))
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    present = each @ boxes.truths[:, :, tuple(SIZES).index(size)]
    for kind, ranked in _by_class(boxes, size):
        rows = max(1, AT_ONCE // max(1, len(ranked.image)))
        for start in range(0, len(each), rows):
            part = slice(start, start + rows)
            precision[part, kind], recall[part, kind] = ranked.scores(each[part], present[part, kind])
    return BoxAP(precision, recall)


def recall_curves(boxes: BoxSet) -> Array:
    """Return the precision of each class at each of `RECALLS` and IoU 0.5, (k, recalls): its mean is AP50.

    It is NaN for a class without a true box.
    """
    curves = np.full((boxes.truths.shape[1], len(RECALLS)), np.nan)
    present = boxes.truths[:, :, 0].sum(0).astype(np.float64)
    for kind, ranked in _by_class(boxes, "all"):
        places = np.flatnonzero(ranked.right[0])
        hits, answers = np.arange(1.0, len(places) + 1), np.cumsum(~ranked.ignored[0])[places]
        needed = _needed(present[kind : kind + 1])
        curves[kind] = _interpolated(hits[None], answers[None], needed)[0] if len(places) else 0.0
    return curves


class _Ranked(NamedTuple):
    """The boxes of one class, the highest score first: image (n,), and flags (thresholds, n)."""

    image: Integers
    right: Flags
    ignored: Flags

    def scores(self, weights: Array, present: Array) -> tuple[Array, Array]:
        """Return average precision and recall (draws, thresholds) for weights (draws, images) and the true boxes."""
        heavy = weights[:, self.image]
        total = np.cumsum(heavy, axis=1)
        shape = (len(weights), len(THRESHOLDS))
        precision, recall = np.zeros(shape), np.zeros(shape)
        needed = _needed(present)
        for t in range(len(THRESHOLDS)):
            places = np.flatnonzero(self.right[t])
            if not len(places):
                continue
            hits = np.cumsum(heavy[:, places], axis=1)
            answers = total[:, places]
            if (left_out := np.flatnonzero(self.ignored[t])).size:
                less = np.cumsum(heavy[:, left_out], axis=1)
                before = np.searchsorted(left_out, places)
                answers -= np.where(before > 0, less[:, before - 1], 0.0)
            precision[:, t] = _interpolated(hits, answers, needed).mean(1)
            recall[:, t] = hits[:, -1]
        absent = present == 0
        recall /= np.where(absent, 1.0, present)[:, None]
        precision[absent], recall[absent] = np.nan, np.nan
        return precision, recall


def _by_class(boxes: BoxSet, size: str) -> Iterator[tuple[int, _Ranked]]:
    """Yield the classes that have a true box, with their boxes; those ignored at every threshold are left out."""
    low = bit(size, 0)
    mask = ((1 << len(THRESHOLDS)) - 1) << low
    counted = (boxes.ranks < MOST) & ((boxes.ignored & mask) != mask)
    places = np.flatnonzero(counted)
    places = places[np.lexsort((-boxes.scores[places], boxes.kinds[places]))]
    kinds, shifts = boxes.kinds[places], np.arange(low, low + len(THRESHOLDS))[:, None]
    present = boxes.truths[:, :, tuple(SIZES).index(size)].sum(0) > 0
    for kind in np.flatnonzero(present).tolist():
        own = places[np.searchsorted(kinds, kind, "left") : np.searchsorted(kinds, kind, "right")]
        hits = np.flatnonzero(boxes.right[own] & mask)
        own = own[: int(hits[-1]) + 1 if len(hits) else 0]  # boxes below the last right one change nothing
        right, ignored = ((bits[own] >> shifts & 1).astype(bool) for bits in (boxes.right, boxes.ignored))
        yield kind, _Ranked(boxes.image[own], right, ignored)


def _needed(present: Array) -> Array:
    """Return the fewest right boxes whose share of the true ones (draws,) reaches each recall: (draws, recalls)."""
    whole = np.maximum(present, 1.0)[:, None]
    needed = np.ceil(RECALLS * whole)
    # The product is rounded; a share of right boxes is compared with a recall as a quotient.
    needed = np.where((needed - 1) / whole >= RECALLS, needed - 1, needed)
    needed = np.where(needed / whole < RECALLS, needed + 1, needed)
    return np.maximum(needed, 0.0)


def _interpolated(hits: Array, answers: Array, needed: Array) -> Array:
    """Return the best precision at each recall or a higher one: (draws, recalls).

    `hits` and `answers` (draws, n) count the right boxes and all boxes up to each right one.
    """
    precision = hits / (answers + np.spacing(1.0))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    draws, n = hits.shape
    # One search for all draws: the counts of a draw rise, and an offset puts the draws one after another.
    offset = np.arange(draws)[:, None] * (max(hits[:, -1].max(), needed.max()) + 2.0)
    found = np.searchsorted((hits + offset).ravel(), (needed + offset).ravel()).reshape(needed.shape)
    place = found - np.arange(draws)[:, None] * n
    values = np.take_along_axis(best, np.minimum(place, n - 1), 1)
    return np.where(place < n, values, 0.0)
