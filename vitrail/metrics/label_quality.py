"""How well the labels of images fit out-of-fold probabilities: self-confidence, margin, and confident alternatives.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70). All
probabilities are (n, k) and must come from heads that were not trained on the image; labels are indices (n,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NONE = -1
"""Stands for no alternative."""


def self_confidence(probabilities: Array, labels: Indices) -> Array:
    """Return the probability of each image's own label: (n,)."""
    own: Array = probabilities[np.arange(len(labels)), labels]
    return own


def best_others(probabilities: Array, labels: Indices) -> Indices:
    """Return the most probable class of each image other than its label: (n,)."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    best: Indices = others.argmax(axis=1)
    return best


def margins(probabilities: Array, labels: Indices) -> Array:
    """Return the probability of the label minus that of the most probable other class, -1 … 1: (n,)."""
    other = self_confidence(probabilities, best_others(probabilities, labels))
    margin: Array = self_confidence(probabilities, labels) - other
    return margin


def thresholds(probabilities: Array, labels: Indices) -> Array:
    """Return the mean self-confidence of each class (eq. 2): (k,); infinity for a class without images.

    A class that the heads know badly, such as a rare one, has a low threshold.
    """
    own = self_confidence(probabilities, labels)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    return means


def alternatives(probabilities: Array, labels: Indices) -> Indices:
    """Return for each image the most probable class that reaches its threshold, `NONE` if it is the label: (n,).

    It is also `NONE` if no class reaches its threshold: then the heads are not sure of anything (eq. 1).
    """
    reached = np.where(probabilities >= thresholds(probabilities, labels), probabilities, -np.inf)
    best = reached.argmax(axis=1)
    found = np.isfinite(reached.max(axis=1)) & (best != labels)
    chosen: Indices = np.where(found, best, NONE)
    return chosen
