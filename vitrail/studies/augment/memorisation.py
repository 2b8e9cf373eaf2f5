"""Whether generated images are copies of real ones: how near the nearest real one is, and how near real ones are.

Meehan, Chaudhuri and Dasgupta 2020 (arXiv:2004.05675) compare such distances; here every real image is left out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import count
from vitrail.metrics.intervals import Interval, wilson

Array = NDArray[np.float64]

NEAR = 0.05
"""A generated image is a copy if it is nearer to a real one than this share of the real ones are to each other."""

MOST = 0.1
"""If clearly more of the generated images are copies (the lower end of the interval), the generator memorised."""

FEWEST = 3
"""Real images (groups count once) without which nothing can be said of copies."""


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest real image: of generated ones (n,), and of real ones to others (m,).

    `nearest` (n,) are the places of these real images, and `limit` is the distance below which an image is a copy.
    """

    made: Array
    real: Array
    nearest: NDArray[np.int64]
    limit: float

    @property
    def copies(self) -> NDArray[np.bool_]:
        """Which generated images are copies: (n,)."""
        copies: NDArray[np.bool_] = self.made <= self.limit
        return copies

    @property
    def share(self) -> Interval:
        """The share of copies among the generated images."""
        return wilson(int(self.copies.sum()), len(self.made))

    @property
    def passed(self) -> bool:
        """Whether copies are no more than chance makes."""
        return self.share.low <= MOST

    def sentence(self) -> str:
        """Return what was found."""
        verdict = "No memorisation" if self.passed else "Memorised"
        copies = int(self.copies.sum())
        found = (
            f"none of {count(len(self.made), 'generated image')} is nearer"
            if not copies
            else f"{copies:,} of {count(len(self.made), 'generated image')} ({self.share}) "
            f"{'is' if copies == 1 else 'are'} nearer"
        )
        return (
            f"{verdict}: {found} to a real training image than {1 - NEAR:.0%} of the real ones are to each other. "
            f"Median distance to the nearest: {np.median(self.made):.3f} of generated ones, "
            f"{np.median(self.real):.3f} among {count(len(self.real), 'real one')}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "passed": self.passed,
            "copies": int(self.copies.sum()),
            "share": self.share.to_dict(),
            "limit": round(self.limit, 6),
            "generated": _spread(self.made),
            "real": _spread(self.real),
        }


def memorisation(made: Array, real: Array, groups: Sequence[str]) -> Memorisation:
    """Compare vectors of generated images (n, d) and of real training images of their class (m, d).

    Images of one group (duplicates, one patient) are no neighbours of each other.

    Raises:
        DataError: too few real images.
    """
    if len(set(groups)) < FEWEST:
        raise DataError(
            f"{count(len(set(groups)), 'real training image')} of the class (groups count once) cannot tell whether a "
            f"generated one is a copy. It takes {FEWEST}: add images."
        )
    apart = _distances(real, real)
    names = np.asarray(groups)
    apart[names[:, None] == names[None]] = np.inf
    between = _distances(made, real)
    own = apart.min(1)
    return Memorisation(between.min(1), own, between.argmin(1), float(np.quantile(own, NEAR)))


def _distances(some: Array, others: Array) -> Array:
    """Return the distances (n, m) of vectors of length 1."""
    one, other = (
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (some, others)
    )
    distances: Array = np.sqrt(np.maximum(2 - 2 * one @ other.T, 0))
    return distances


def _spread(values: Array) -> dict[str, float]:
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return {"least": round(float(low), 6), "median": round(float(middle), 6), "most": round(float(high), 6)}
