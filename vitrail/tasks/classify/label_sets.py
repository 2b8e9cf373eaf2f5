"""Answers "none of these", and sets of the labels that cannot be ruled out, from scores of known images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.data.labels import count, shorten
from vitrail.metrics.conformal import least_images, limit, promise, share_below
from vitrail.tasks.abstention import EACH_CLASS, Abstention

Array = NDArray[np.float64]

FARTHEST = 1e6
"""The distance from the limit, in spreads of known images, that is 0 or 1 in a proof."""

NEAR = 0.003
"""Two answers "none of these" and not are the same if their values in a proof differ by less: rounding of a backend."""


def unlike(abstention: Abstention, novelty: float) -> float:
    """Return the share of known images that fit their classes better: 1 minus the conformal p-value."""
    return share_below(abstention.novelty, novelty)


def is_novel(abstention: Abstention, novelty: Tensor) -> Tensor:
    """Return for which scores (b,) the answer is "none of these"."""
    return novelty.double() > limit(abstention.novelty, abstention.error)


def squashed(abstention: Abstention, novelty: Tensor) -> Tensor:
    """Return scores (b,) as numbers from 0 to 1 for a proof, 0.5 at the limit.

    Far from it, where the proof image mostly is, a change by a hundredth is still seen.
    """
    away = novelty.float() - limit(abstention.novelty, abstention.error)
    grown = torch.log1p(away.abs()).copysign(away) / (2 * math.log1p(FARTHEST))
    return (0.5 + grown).clamp(0, 1)


def set_limits(abstention: Abstention, error: float, each_class: bool) -> Tensor:
    """Return the largest score of each label in a set: (k,).

    With `each_class`, a class with `EACH_CLASS` images has a limit of its own; all others share one.
    """
    shared = limit(pooled(abstention), error)
    own = [
        limit(scores, error) if each_class and len(scores) >= EACH_CLASS else shared
        for scores in abstention.label_scores
    ]
    return torch.tensor(own, dtype=torch.float64)


def pooled(abstention: Abstention) -> list[float]:
    """Return the sorted label scores of all classes."""
    return sorted(score for scores in abstention.label_scores for score in scores)


def refuse_sets(abstention: Abstention | None, error: float) -> None:
    """Raise a SettingError if a model file cannot promise this error for label sets."""
    if not 0 < error < 1:
        raise SettingError(f"--sets is the share of wrong sets, such as 0.05; got {error:g}.")
    if abstention is None or not abstention.label_scores:
        raise SettingError(
            "This model file has no label sets: a training with validation images writes them. Remove --sets, or "
            "train the model again."
        )
    images = sum(map(len, abstention.label_scores))
    if images < (least := least_images(error)):
        raise SettingError(
            f"Label sets with an error of {100 * error:g} % need at least {least:,} {abstention.split} images, and "
            f"this model had {images:,}. Allow a larger error: --sets {math.ceil(1000 / (images + 1)) / 1000:g}"
        )


def remarks(
    abstention: Abstention, labels: Sequence[str], sets: float | None, each_class: bool, novel: bool
) -> Iterator[str]:
    """Yield sentences that explain the numbers of predictions, each for all of them."""
    if novel:
        yield (
            f"none of these (…%): the share of {len(abstention.novelty):,} {abstention.split} images that fit their "
            f"classes better. Of images of known classes, {100 * abstention.error:g} % get this answer by mistake."
        )
    if sets is None:
        return
    if found := promise(len(pooled(abstention)), sets):
        yield f"Sets that hold the right label: {found}, for images like the {abstention.split} images."
    few = [
        label
        for label, scores in zip(labels, abstention.label_scores, strict=True)
        if len(scores) < EACH_CLASS
    ]
    if each_class and few:
        yield (
            f"No promise for {count(len(few), 'class', 'classes')} alone, for lack of {EACH_CLASS} "
            f"{abstention.split} images: {shorten(few, 5)}. They share the limit of all classes."
        )


def members(abstention: Abstention, scores: Array, each_class: bool) -> NDArray[np.bool_]:
    """Return which labels are in the sets of images, at the error of the model file: (n, k) -> (n, k)."""
    found: NDArray[np.bool_] = scores <= set_limits(abstention, abstention.error, each_class).numpy()
    return found
