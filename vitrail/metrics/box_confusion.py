"""What was taken for what, what was missed, and what was invented, at one threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OVERLAP = 0.5
"""IoU from which a predicted box is about an object."""

DOUBLED = 0.9
"""IoU from which two predicted boxes are about the same object."""


class Sides(NamedTuple):
    """Predicted and true boxes of one image: IoU (d, n), classes (d,) and (n,), and which are crowds (n,)."""

    overlaps: NDArray[np.float64]
    found: NDArray[np.int64]
    true: NDArray[np.int64]
    crowd: NDArray[np.bool_]


def confusion(sides: Sides, classes: int) -> NDArray[np.int64]:
    """Return counts (k + 1, k + 1): rows are true classes and, last, *invented*; columns answers and, last, *missed*.

    Boxes are the most confident first. Each takes the object of its class that it overlaps most; what is left is
    paired across classes by overlap. A box left over inside a crowd counts nowhere.
    """
    table = np.zeros((classes + 1, classes + 1), np.int64)
    own = sides.found[:, None] == sides.true[None]
    left = np.where(sides.crowd[None], 0.0, sides.overlaps)
    free = np.ones(len(sides.true), np.bool_) & ~sides.crowd
    open_ = np.ones(len(sides.found), np.bool_)
    for place in range(len(sides.found)):
        row = np.where(free & own[place], left[place], 0.0)
        if len(row) and row.max() >= OVERLAP:
            best = int(row.argmax())
            free[best], open_[place] = False, False
            table[sides.true[best], sides.found[place]] += 1
    while True:
        rest = np.where(open_[:, None] & free[None], left, 0.0)
        if not rest.size or rest.max() < OVERLAP:
            break
        place, best = divmod(int(rest.argmax()), rest.shape[1])
        free[best], open_[place] = False, False
        table[sides.true[best], sides.found[place]] += 1
    in_crowd = ((sides.overlaps >= OVERLAP) & sides.crowd[None]).any(1)
    table[classes] += np.bincount(sides.found[open_ & ~in_crowd], minlength=classes + 1)
    table[:, classes] += np.bincount(sides.true[free], minlength=classes + 1)
    return table


def doubled(overlaps: NDArray[np.float64]) -> int:
    """Return the number of pairs of predicted boxes that are about the same object: IoU (d, d) among them."""
    return int((np.triu(overlaps, 1) >= DOUBLED).sum())
