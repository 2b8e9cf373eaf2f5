"""From what published weights state of their images to our steps: the one place that reads it."""

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
    """Return how these weights want an image: their own size (or `size`), fit, crop, interpolation, mean and std.

    What they do not state is as usual, and so is what we do not have, which `deviations` names.
    """
    stated = found.preprocessing
    size = size or (stated and stated.image) or found.config.size
    base = Preprocess.for_size(size, channels or found.config.channels)
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
    return replace(base, mean=stated.mean, std=stated.std) if len(stated.mean) == base.channels else base


def answering_preprocess(found: Pretrained) -> Preprocess:
    """Return the same where the weights answer as they are; each deviation is a warning."""
    for line in deviations(found):
        warnings.warn(line, stacklevel=2)
    return published_preprocess(found)


def deviations(found: Pretrained) -> Iterator[str]:
    """Yield in a sentence each what was taken for granted of weights, and what they state and we do not have."""
    yield from (f"the weights {found.name}: {line}" for line in found.assumed)
    stated = found.preprocessing
    if stated is None:
        usual = (
            "ImageNet's mean and deviation" if found.config.channels == 3 else "a mean and deviation of 0.5"
        )
        yield f"the weights {found.name} do not state how they want images: {usual} are taken"
        return
    if len(stated.mean) != found.config.channels:
        yield (
            f"the weights {found.name} state {len(stated.mean)} means for {found.config.channels} channels; the usual "
            "ones take their place"
        )
    if stated.interpolation not in (None, *INTERPOLATIONS):
        yield (
            f"the weights {found.name} were made with images resized by {stated.interpolation}, which is not here; "
            "bicubic takes its place"
        )
    if stated.crop_fraction is not None and stated.crop_fraction > 1:
        yield (
            f"the weights {found.name} want a frame around the image (crop fraction {stated.crop_fraction:g}), which "
            "is not here; the image fills the input"
        )
