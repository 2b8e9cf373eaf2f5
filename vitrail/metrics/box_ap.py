"""Average precision of boxes, equal to COCO's to the last digits, and precision and recall at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.box_matching import ALL, THRESHOLDS, Matches

Array = NDArray[Any]

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is read."""

_TINY = float(np.spacing(1))


class Sorted(NamedTuple):
    """The predicted boxes of one class of a whole set, the most confident first, in one range of areas.

    `right` and `ignored` (d, threshold), `image` (d,) the number of the image, `scores` (d,), `objects` (images,).
    """

    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    image: NDArray[np.int64]
    scores: NDArray[np.float64]
    objects: NDArray[np.int64]


def sorted_by_class(matches: Sequence[Matches], classes: int, area: int = ALL) -> list[Sorted]:
    """Return the predicted boxes of each class; equal scores keep the order of the images."""
    image = np.concatenate([np.full(len(one.scores), i) for i, one in enumerate(matches)]).astype(np.int64)
    scores, kinds = (
        np.concatenate(part) for part in zip(*((m.scores, m.kinds) for m in matches), strict=True)
    )
    right, ignored = (
        np.concatenate(part)
        for part in zip(*((m.right[:, area], m.ignored[:, area]) for m in matches), strict=True)
    )
    objects = np.stack([one.objects[:, area] for one in matches])
    found = []
    for kind in range(classes):
        own = np.flatnonzero(kinds == kind)
        order = own[np.argsort(-scores[own], kind="stable")]
        found.append(Sorted(right[order], ignored[order], image[order], scores[order], objects[:, kind]))
    return found


def average_precision(one: Sorted, weights: Array | None = None) -> NDArray[np.float64]:
    """Return the average precision of a class at each threshold, NaN without objects: (threshold,).

    `weights` (images,) says how often each image counts, for a bootstrap.
    """
    every = np.ones(len(one.objects)) if weights is None else np.asarray(weights, np.float64)
    total = float(every @ one.objects)
    if total == 0:
        return np.full(len(THRESHOLDS), np.nan)
    if not len(one.scores):
        return np.zeros(len(THRESHOLDS))
    weight = every[one.image][:, None]
    right = np.cumsum(weight * one.right, 0)
    wrong = np.cumsum(weight * ~(one.right | one.ignored), 0)
    recall, precision = right / total, right / (right + wrong + _TINY)
    envelope = np.maximum.accumulate(precision[::-1], 0)[::-1]
    values = [_read(recall[:, level], envelope[:, level]) for level in range(len(THRESHOLDS))]
    return np.array(values)


def _read(recall: Array, envelope: Array) -> float:
    """Return the mean of the precisions at `RECALLS`; 0 where a recall is never reached."""
    at = np.searchsorted(recall, RECALLS, side="left")
    reached = at < len(recall)
    return float(envelope[at[reached]].sum() / len(RECALLS))


def mean_precisions(classes: Sequence[Sorted], weights: Array | None = None) -> NDArray[np.float64]:
    """Return the average precision of each class at each threshold, NaN for classes without objects: (k, threshold)."""
    return np.stack([average_precision(one, weights) for one in classes])


def mean_of(table: Array) -> float:
    """Return the mean over the classes that have objects; NaN if none has."""
    with_objects = ~np.isnan(table).reshape(len(table), -1).any(1)
    return float(table[with_objects].mean()) if with_objects.any() else float("nan")


class ThresholdCurve(NamedTuple):
    """Precision, recall and F1 of all boxes of at least a confidence, at IoU 0.5: (n,) each, the confidence rising."""

    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def best(self) -> float:
        """Return the confidence with the best F1, the largest of equal ones; 0.5 without any right box."""
        if not len(self.f1) or not self.f1.max() > 0:
            return 0.5
        return float(self.confidence[len(self.f1) - 1 - int(self.f1[::-1].argmax())])


def threshold_curve(classes: Sequence[Sorted]) -> ThresholdCurve:
    """Return precision, recall and F1 over the classes together, for every confidence that a box has."""
    scores = np.concatenate([one.scores for one in classes])
    right = np.concatenate([one.right[:, 0] for one in classes])
    ignored = np.concatenate([one.ignored[:, 0] for one in classes])
    total = sum(int(one.objects.sum()) for one in classes)
    order = np.argsort(-scores, kind="stable")
    scores, right, counted = scores[order], right[order], ~ignored[order]
    hits, found = np.cumsum(right), np.cumsum(counted)
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.zeros(0, np.int64)
    hits, found, scores = hits[last][::-1], found[last][::-1], scores[last][::-1]
    precision, recall = hits / np.maximum(found, 1), hits / max(total, 1)
    f1 = 2 * hits / np.maximum(found + total, 1)
    return ThresholdCurve(scores, precision, recall, f1)
