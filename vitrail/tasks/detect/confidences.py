"""The confidences of predicted boxes and whether they are right, and how often scores are resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.box_ap import Sorted

FAINT = 0.05
"""Boxes of less confidence say nothing about calibration: nearly all queries see no object."""

DRAWS, FEW_DRAWS = 500, 100
"""Bootstrap samples of average precision, and of that of small, medium and large objects."""


def confidences(classes: Sequence[Sorted]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of every box that counts, from `FAINT`, and whether it is right at IoU 0.5: (n,)."""
    scores = np.concatenate([one.scores[~one.ignored[:, 0]] for one in classes])
    right = np.concatenate([one.right[~one.ignored[:, 0], 0] for one in classes])
    told = scores >= FAINT
    return np.clip(scores[told], 1e-9, 1 - 1e-9), right[told]
