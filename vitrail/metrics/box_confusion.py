"""Which classes of objects are taken for which, which are missed or invented, and which are predicted twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.box_matching import FIRST_IOU, Found, MatchedBoxes, Truths, bit, ious

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

SAME_PLACE = 0.9
"""Predicted objects with a larger IoU are most likely of one object."""


class BoxPairs(NamedTuple):
    """True and predicted objects of an image in pairs, by class: `truth` and `answer` (m,).

    The number of classes stands for no true object (invented) or no predicted one (missed). `scores` (m,) is that of
    the prediction, 0 without one.
    """

    truth: Integers
    answer: Integers
    scores: Array


def pair_boxes(found: Found, truths: Truths, matches: MatchedBoxes, least: float) -> BoxPairs:
    """Return the pairs of the boxes of one image, see `pair_objects`; `found` has the highest score first."""
    return pair_objects(ious(found[0], truths[0], truths[2]), truths[1:], matches, least)


def pair_objects(
    overlaps: Array, truths: tuple[Integers, Flags], matches: MatchedBoxes, least: float
) -> BoxPairs:
    """Return the pairs of one image at IoU 0.5, for predictions with a score of at least `least`.

    `overlaps` (n, m) has the highest score first, as `matches` has; `truths` are the classes and whether each is a
    crowd. A prediction is paired with the true object that it matches in its class, so that the diagonal of a confusion
    matrix agrees with precision and recall. What is left is paired across classes, the largest IoU first. Crowds are
    not missed, and predictions that match them are left out.
    """
    none = matches.truths.shape[0]
    ignored = (matches.ignored >> bit("all", 0) & 1).astype(bool)
    counted = (matches.scores >= least) & ~ignored
    hits = np.flatnonzero(counted & (matches.partner >= 0))
    invented = np.flatnonzero(counted & (matches.partner < 0))
    missed = np.setdiff1d(np.flatnonzero(~truths[1]), matches.partner[hits])
    crossed = _across(overlaps[np.ix_(invented, missed)])
    wrong, taken = invented[crossed[0]], missed[crossed[1]]
    invented, missed = np.delete(invented, crossed[0]), np.delete(missed, crossed[1])
    answers = np.concatenate([hits, wrong, invented])
    scores = np.concatenate([matches.scores[answers], np.zeros(len(missed))])
    true = (
        truths[0][matches.partner[hits]],
        truths[0][taken],
        np.full(len(invented), none),
        truths[0][missed],
    )
    return BoxPairs(
        np.concatenate(true), np.concatenate([matches.kinds[answers], np.full(len(missed), none)]), scores
    )


def _across(overlaps: Array) -> tuple[list[int], list[int]]:
    """Return rows and columns of pairs with enough overlap, the largest first, each row and column once."""
    rows, columns = np.nonzero(overlaps >= FIRST_IOU)
    order = np.argsort(
        -overlaps[rows, columns], kind="stable"
    )  # of equal overlaps the higher score comes first
    pairs: dict[int, int] = {}
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return list(pairs), list(pairs.values())


def confusion(pairs: Iterable[BoxPairs], classes: int) -> Integers:
    """Return how often each class is taken for each, (k + 1, k + 1): rows truth, columns predictions.

    The last row counts invented boxes, the last column missed ones.
    """
    side = classes + 1
    cells = [one.truth * side + one.answer for one in pairs]
    whole = np.concatenate([*cells, np.zeros(0, np.int64)])
    return np.bincount(whole, minlength=side * side).reshape(side, side)


def tally(pairs: Sequence[BoxPairs], classes: int) -> Integers:
    """Return right, missed, invented and mistaken objects of each image: (images, 4)."""
    counts = np.zeros((len(pairs), 4), np.int64)
    for row, one in zip(counts, pairs, strict=True):
        missed, invented = one.answer == classes, one.truth == classes
        right = one.answer == one.truth
        row[:] = right.sum(), missed.sum(), invented.sum(), (~(right | missed | invented)).sum()
    return counts


def count_duplicates(corners: Array, kinds: Integers) -> tuple[int, int]:
    """Return the number of pairs of predicted boxes with an IoU above `SAME_PLACE`, and of those of two classes."""
    return count_same_place(ious(corners, corners, np.zeros(len(corners), np.bool_)), kinds)


def count_same_place(overlaps: Array, kinds: Integers) -> tuple[int, int]:
    """Return the number of pairs of objects with an IoU (n, n) above `SAME_PLACE`, and of those of two classes."""
    rows, columns = np.nonzero(np.triu(overlaps, 1) > SAME_PLACE)
    return len(rows), int((kinds[rows] != kinds[columns]).sum())
