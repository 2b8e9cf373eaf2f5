"""Cohen's kappa: agreement of predictions with the truth beyond chance (Cohen 1960, Educ. Psychol. Meas. 20)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kappa(hits: Any, truth: Any, said: Any) -> Array:
    """Return (p_o - p_e) / (1 - p_e) from the totals of each class, (…, k) each: (…).

    `hits` are the right predictions, `truth` the images and `said` the predictions of each class. NaN where chance
    alone would agree always: without images, or where one class is all there is.
    """
    hits, truth, said = (np.asarray(part, np.float64) for part in (hits, truth, said))
    total = truth.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed, chance = hits.sum(-1) / total, (truth * said).sum(-1) / total**2
        value: Array = np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)
    return value


def kappa_of_table(table: Any) -> Array:
    """Return kappa of confusion matrices with truth as rows, (…, k, k): (…).

    A further column (…, k, k + 1) counts what has a truth and no prediction, which agrees with nothing.
    """
    table = np.asarray(table)
    predicted = table[..., : table.shape[-2]]
    return kappa(np.diagonal(predicted, axis1=-2, axis2=-1), table.sum(-1), predicted.sum(-2))
