"""Convert the preprocessing that published weights state to ours. No other module reads it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from vitrail.data.preprocess import Preprocess, usual_fraction
from vitrail.data.resize import INTERPOLATIONS, Interpolation
from vitrail.weights.pretrained import Pretrained


def published_preprocess(
    found: Pretrained, size: tuple[int, int] | None = None, channels: int | None = None
) -> Preprocess:
    """Return the preprocessing of these weights: their size (or `size`), fit, crop, interpolation, mean and std.

    Values that are not stated, or not supported, are the defaults; `deviations` lists them.
    """
    stated = found.preprocessing
    size = size or (stated and stated.image) or found.config.size
    base = Preprocess.for_size(size, channels or found.image_channels)
    if stated is None:
        return base
    fit = stated.fit or base.fit
    fraction = stated.crop_fraction if stated.fit else None
    known = stated.interpolation in INTERPOLATIONS
    base = replace(
        base,
        fit=fit,
        crop_fraction=min(1.0, fraction or usual_fraction(fit)),
        interpolation=cast(Interpolation, stated.interpolation) if known else base.interpolation,
    )
    if len(stated.mean) != base.channels:
        return base
    return replace(base, mean=stated.mean, std=stated.std, scale=stated.scale)


def answering_preprocess(found: Pretrained) -> Preprocess:
    """Return the preprocessing for using the weights without training; each deviation is logged as a warning."""
    for line in deviations(found):
        warnings.warn(line, stacklevel=2)
    return published_preprocess(found)


def deviations(found: Pretrained) -> Iterator[str]:
    """Yield a sentence for each assumption about weights, and for each stated value that is not supported."""
    yield from (f"the weights {found.name}: {line}" for line in found.assumed)
    stated = found.preprocessing
    if stated is None:
        usual = (
            "ImageNet's mean and deviation" if found.config.channels == 3 else "a mean and deviation of 0.5"
        )
        yield f"the weights {found.name} do not state their preprocessing: {usual} are used"
        return
    if len(stated.mean) != found.image_channels:
        yield (
            f"the weights {found.name} state {len(stated.mean)} means for {found.image_channels} channels; the "
            "defaults are used instead"
        )
    yield from (f"the weights {found.name}: {line}" for line in stated.apart)
    if stated.interpolation not in (None, *INTERPOLATIONS):
        yield (
            f"the weights {found.name} were trained on images resized with {stated.interpolation}, which is not "
            "supported; bicubic is used instead"
        )
    if stated.crop_fraction is not None and stated.crop_fraction > 1:
        yield (
            f"the weights {found.name} need a border around the image (crop fraction {stated.crop_fraction:g}), which "
            "is not supported; the image fills the input"
        )
