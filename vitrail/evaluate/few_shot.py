"""The few-shot linear metric of ViT's ablations: closed-form ridge regression on frozen features (arXiv:2010.11929)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError

Floats = NDArray[np.float64]

BIAS = 100.0
"""The constant bias feature: so large that ridge regularization hardly shrinks its weight."""

STRENGTH = 1024.0
"""The ridge regularization, as in Google's code."""


def few_shot(
    learnt: NDArray[np.floating],
    classes: NDArray[np.int64],
    held: NDArray[np.floating],
    truth: NDArray[np.int64],
    *,
    shots: int,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[float]:
    """Return the accuracy on held-out features (m, d) after training on `shots` images per class, one per seed.

    The training images of each class are sampled from the features `learnt` (n, d) with the seed.

    Raises:
        DataError: a class has fewer images than that.
    """
    return [_one(learnt, classes, held, truth, shots, seed) for seed in seeds]


def _one(
    learnt: NDArray[np.floating],
    classes: NDArray[np.int64],
    held: NDArray[np.floating],
    truth: NDArray[np.int64],
    shots: int,
    seed: int,
) -> float:
    draw = np.random.default_rng(seed)
    places = []
    for number in np.unique(classes):
        of_class = np.flatnonzero(classes == number)
        if len(of_class) < shots:
            raise DataError(
                f"Class {number} has {len(of_class)} images, fewer than {shots} shots. Use fewer shots."
            )
        places.append(draw.choice(of_class, shots, replace=False))
    chosen = np.concatenate(places)
    weights = ridge(standard(learnt[chosen], learnt[chosen]), signs(classes[chosen]), STRENGTH)
    answers = (standard(held, learnt[chosen]) @ weights).argmax(1)
    return float((np.unique(classes)[answers] == truth).mean())


def standard(x: NDArray[np.floating], by: NDArray[np.floating]) -> Floats:
    """Standardize features (n, d) with mean and deviation of `by`, and append the constant: (n, d + 1)."""
    scaled = (x.astype(np.float64) - by.mean(0)) / (by.std(0) + 1e-5)
    return np.concatenate([scaled, np.full((len(x), 1), BIAS)], axis=1)


def signs(classes: NDArray[np.int64]) -> Floats:
    """Return +1 for the class of each image and -1 for the others: (n, k)."""
    return np.where(classes[:, None] == np.unique(classes)[None], 1.0, -1.0)


def ridge(x: Floats, y: Floats, strength: float) -> Floats:
    """Return (XᵀX + λI)⁻¹XᵀY, (d, k), by solving the smaller of two equivalent systems."""
    n, d = x.shape
    if n < d:  # equal to Xᵀ(XXᵀ + λI)⁻¹Y
        return x.T @ np.linalg.solve(x @ x.T + strength * np.eye(n), y)
    return np.asarray(np.linalg.solve(x.T @ x + strength * np.eye(d), x.T @ y))
