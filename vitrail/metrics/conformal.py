"""Split conformal prediction: limits for scores that keep a promise for new images like those they were set on.

Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021, arXiv:2107.07511. Scores are larger the worse an image
fits. The limit is the ⌈(n + 1)(1 − error)⌉-th smallest of n scores; a new score is above it with a probability of at
most `error`. For one set of n images the share that is really kept follows a beta distribution (there, §3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXACT = 1e-9
"""Tolerance of (n + 1) · error as a whole number: 0.05 · 20 is one."""


class Promise(NamedTuple):
    """What a limit set on `images` scores promises, and where 95 % of such limits really lie."""

    promised: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return (
            f"promised {100 * self.promised:g} %, this file delivers {100 * self.low:.1f} to {100 * self.high:.1f} "
            f"({self.images:,} images)"
        )


def least_images(error: float) -> int:
    """Return the smallest number of images with which an error below 1 can be promised: 19 for 0.05."""
    return ceil(1 / error - EXACT) - 1


def above(images: int, error: float) -> int:
    """Return how many of n + 1 scores may lie above the limit."""
    return floor((images + 1) * error + EXACT)


def promise(images: int, error: float) -> Promise | None:
    """Return what a limit on so many images promises, or None if they are too few."""
    from scipy.stats import beta  # slow to import, and no prediction needs it

    over = above(images, error)
    if over < 1:
        return None
    low, high = beta.ppf([0.025, 0.975], images + 1 - over, over)
    return Promise(1 - error, float(low), float(high), images)


def limit(scores: Sequence[float], error: float) -> float:
    """Return the limit on sorted scores: larger ones break the promise; infinity if there are too few of them."""
    over = above(len(scores), error)
    return scores[len(scores) - over] if over >= 1 else inf


def share_below(scores: Sequence[float], value: float) -> float:
    """Return the share of sorted scores, of n + 1, that are below a value: 1 minus its conformal p-value."""
    return float(np.searchsorted(np.asarray(scores), value, side="left")) / (len(scores) + 1)
