"""Temperature scaling: one number that calibrates probabilities (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a temperature."""

SPREAD = 0.5
"""Standard deviation of the prior on the logarithm of the temperature.

Without a prior, a few images that are all predicted correctly would give a temperature of zero. With a thousand
images the prior has almost no effect.
"""


SMALLEST = 1e-7
"""Scores nearer to 0 or 1 have no finite logit in float32."""


def fit_temperature(logits: Array, truth: NDArray[np.int64]) -> float:
    """Return the temperature that maximises the likelihood of the true classes: logits (n, k), classes (n,).

    It is 1 without images.
    """

    def loss(at: float) -> float:
        scaled = logits / at
        top = scaled.max(axis=1)
        whole = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((whole - scaled[np.arange(len(truth)), truth]).sum())

    return _least(loss) if len(truth) else 1.0


def fit_label_temperature(logits: Array, truth: NDArray[np.bool_]) -> float:
    """Return the temperature that maximises the likelihood of independent binary labels: both (n, k)."""

    def loss(at: float) -> float:
        return float(np.logaddexp(0.0, np.where(truth, -logits, logits) / at).sum())

    return _least(loss) if len(truth) else 1.0


def score_logits(scores: Array) -> Array:
    """Return the logits of scores from 0 to 1; scores of 0 and 1 are taken as `SMALLEST` away from them."""
    inner = np.clip(scores, SMALLEST, 1.0 - SMALLEST)
    logits: Array = np.log(inner) - np.log1p(-inner)
    return logits


def scale_scores(scores: Array, temperature: float) -> Array:
    """Return independent scores from 0 to 1 at a temperature; at temperature 1 they are unchanged."""
    if temperature == 1.0:
        return scores
    scaled: Array = 1.0 / (1.0 + np.exp(-score_logits(scores) / temperature))
    return scaled


def _least(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar  # slow to import, and no prediction needs it

    def whole(logarithm: float) -> float:
        return loss(float(np.exp(logarithm))) + 0.5 * (logarithm / SPREAD) ** 2

    optimum = minimize_scalar(whole, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    # Four digits: more would be noise, and a score computed twice must not differ by it.
    return round(float(np.exp(optimum.x)), 4)
