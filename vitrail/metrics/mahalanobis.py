"""Mahalanobis distance to the nearest class, on vectors of length 1, with a shrunk covariance.

Lee et al. 2018, arXiv:1807.03888; relative to a Gaussian of all images: Ren et al. 2021, arXiv:2106.09022; vectors of
length 1: Müller and Hein 2025, arXiv:2505.18032. The covariance is that of Ledoit and Wolf 2004. Only means and
covariances are kept, no vector of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Gaussians(NamedTuple):
    """One Gaussian a class, with a common covariance, and one of all images.

    `within` and `whole` make the covariances of classes and of all images the identity: x -> x · within.
    """

    centre: Array  # (d,) mean of all images
    within: Array  # (d, d)
    means: Array  # (k, d) class means, less the centre, times `within`
    whole: Array  # (d, d)


class Distances(NamedTuple):
    """Squared distances of images: to the nearest class mean, and to the mean of all images; (n,) each."""

    nearest: Array
    whole: Array

    def of(self, relative: bool) -> Array:
        """Return the distance to the nearest class, or by how much it is larger than that to the mean of all."""
        return self.nearest - self.whole if relative else self.nearest


def fit_gaussians(vectors: Array, truth: Whole) -> Gaussians:
    """Fit Gaussians to vectors (n, d) of the classes `truth` (n,); every class that occurs gets a mean."""
    x = unit(vectors)
    present, index = np.unique(truth, return_inverse=True)
    means = np.stack([x[index == one].mean(0) for one in range(len(present))])
    centre: Array = x.mean(0)
    within = _whitening(x - means[index])
    return Gaussians(centre, within, (means - centre) @ within, _whitening(x - centre))


def distances(gaussians: Gaussians, vectors: Array) -> Distances:
    """Return the distances of vectors (n, d)."""
    x = unit(vectors) - gaussians.centre
    inside, means = x @ gaussians.within, gaussians.means
    products = (inside**2).sum(1)[:, None] - 2 * inside @ means.T + (means**2).sum(1)
    return Distances(products.min(1), ((x @ gaussians.whole) ** 2).sum(1))


def unit(vectors: Array) -> Array:
    """Return vectors (n, d) with length 1."""
    x = vectors.astype(np.float64, copy=False)
    scaled: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled


def _whitening(centred: Array) -> Array:
    """Return the matrix (d, d) that turns vectors with this shrunk covariance into uncorrelated ones of variance 1."""
    from scipy.linalg import cholesky, solve_triangular  # slow to import, and no prediction needs them
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    # Without any spread, as with one image a class, every direction counts alike.
    floor = max(1e-12, 1e-9 * float(np.trace(covariance)) / len(covariance))
    lower = cholesky(covariance + floor * np.eye(len(covariance)), lower=True)
    inverse: Array = solve_triangular(lower, np.eye(len(covariance)), lower=True)
    return inverse.T
