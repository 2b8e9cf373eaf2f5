"""The loss of masked autoencoders: squared error of the pixels of hidden patches (He et al. 2022, arXiv:2111.06377)."""

from __future__ import annotations

from torch import Tensor

EPSILON = 1e-6
"""Added to the variance of a patch, as in the published code."""

PATCHES, PIXELS, HIDDEN = "patches", "pixels", "hidden"
"""Outputs: the predicted patches (b, n, v), the true ones (b, n, v), and 1 for each hidden patch (b, n)."""

ERROR, SPREAD = "error", "spread"
"""Outputs: the mean squared error of the hidden patches of each image (b,), and their variance (b,)."""


def spans(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each patch: (b, n, v) -> (b, n, 1) both, the second never zero."""
    variance, mean = pixels.var(-1, keepdim=True), pixels.mean(-1, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def wanted(pixels: Tensor, normalise: bool) -> Tensor:
    """Return what is to be predicted of true patches (b, n, v): the pixels, or relative to those of their patch."""
    if not normalise:
        return pixels
    mean, deviation = spans(pixels)
    return (pixels - mean) / deviation


def squared_error(predicted: Tensor, true: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean squared error of each image over its hidden patches: (b, n, v), (b, n, v), (b, n) -> (b,)."""
    errors = (predicted.float() - true).square().mean(-1)
    return (errors * hidden).sum(1) / hidden.sum(1)


def variance(true: Tensor, hidden: Tensor, normalise: bool) -> Tensor:
    """Return the variance that a prediction can explain: 1 for normalised patches, else that of the hidden pixels."""
    if normalise:
        return true.new_ones(len(true))
    share = hidden[..., None] / (hidden.sum(1)[:, None, None] * true.shape[-1])
    mean = (true * share).sum((1, 2), keepdim=True)
    return ((true - mean).square() * share).sum((1, 2))
