"""One number that makes probabilities honest: temperature scaling, Guo et al. 2017, arXiv:1706.04599."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]

LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a temperature."""

SPREAD = 0.5
"""Deviation of the logarithm of a temperature before anything is seen.

A few images that are all answered rightly would otherwise ask for a temperature of zero; a thousand images
outweigh this by far.
"""


def temperature(logits: Array, truth: NDArray[np.int64]) -> float:
    """Return the temperature under which the true classes are likeliest: logits (n, k), classes (n,).

    It is 1 where there are no images.
    """

    def loss(at: float) -> float:
        scaled = logits / at
        top = scaled.max(axis=1)
        whole = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((whole - scaled[np.arange(len(truth)), truth]).sum())

    return _least(loss) if len(truth) else 1.0


def temperature_of_labels(logits: Array, truth: NDArray[np.bool_]) -> float:
    """Return the temperature under which labels that are each a yes or a no are likeliest: both (n, k)."""

    def loss(at: float) -> float:
        return float(np.logaddexp(0.0, np.where(truth, -logits, logits) / at).sum())

    return _least(loss) if len(truth) else 1.0


def _least(loss: Callable[[float], float]) -> float:
    def whole(logarithm: float) -> float:
        return loss(float(np.exp(logarithm))) + 0.5 * (logarithm / SPREAD) ** 2

    found = minimize_scalar(whole, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    # Four digits: more would be noise, and a score told twice must not differ by it.
    return round(float(np.exp(found.x)), 4)
