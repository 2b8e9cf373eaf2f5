"""Fit linear heads on frozen features with scikit-learn, and predict held-out images by cross-validation.

`truth` is the array that a task's probe makes from the targets; its first axis is the images. `groups` holds one group
number per image; the images of a group stay on one side of every split.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.tasks.probe import DenseProbe, Linear, Probe, Vectors, Whole

STRENGTHS = (0.003, 0.03, 0.3)
"""Inverse regularisation strengths that are tried, on features of standard deviation 1."""


def fit_head(probe: Probe, vectors: Vectors, truth: Whole, groups: Whole) -> Linear:
    """Fit the probe's regression; its regularisation is chosen on a held-out fifth of the groups."""
    from sklearn.model_selection import GroupShuffleSplit

    if len(np.unique(groups)) < 2:
        return fit(probe, vectors, truth, STRENGTHS[1])
    inner, outer = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(vectors, truth, groups))
    worth = {
        head.strength: probe.worth(head.logits(vectors[outer]), truth[outer])
        for head in _path(probe, vectors[inner], truth[inner], STRENGTHS)
    }
    return fit(probe, vectors, truth, max(worth, key=worth.__getitem__))


def fit(probe: Probe, vectors: Vectors, truth: Whole, strength: float) -> Linear:
    """Fit the layer with one regularisation strength."""
    return next(_path(probe, vectors, truth, (strength,)))


def _path(probe: Probe, vectors: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
    """Fit a layer for each strength; the standardisation of the features is folded into its weights."""
    if isinstance(probe, DenseProbe):
        vectors, truth = probe.sample(vectors, truth)
    mean, deviation = vectors.mean(0), vectors.std(0) + 1e-6
    scaled = (vectors - mean) / deviation
    for weight, bias, strength in probe.regressions(scaled, truth, strengths):
        unscaled = weight / deviation
        yield Linear(unscaled, bias - unscaled @ mean, strength)


class OutOfFold(NamedTuple):
    """Predictions on held-out images: logits (n, k), the logits of heads trained on half the images, and the folds."""

    logits: Vectors
    half: Vectors
    folds: Whole  # (n,): which fold held each image


def out_of_fold(probe: Probe, vectors: Vectors, truth: Whole, groups: Whole, folds: int = 5) -> OutOfFold:
    """Predict every image once with a head that was fitted without its group (stratified, grouped folds).

    Raises:
        DataError: there are too few images.
    """
    from sklearn.model_selection import GroupShuffleSplit

    logits: list[Vectors] = []
    halves: list[Vectors] = []
    number, order = np.zeros(len(vectors), dtype=np.int64), []
    for fold, (fitted, held, head) in enumerate(_heads(probe, vectors, truth, groups, folds)):
        logits.append(head.logits(vectors[held]))
        order.append(held)
        number[held] = fold
        part = fitted
        if len(np.unique(groups[fitted])) > 1:
            split = GroupShuffleSplit(1, train_size=0.5, random_state=0)
            part = fitted[next(split.split(fitted, truth[fitted], groups[fitted]))[0]]
        halves.append(fit(probe, vectors[part], truth[part], head.strength).logits(vectors[held]))
    back = np.argsort(np.concatenate(order))
    return OutOfFold(np.concatenate(logits)[back], np.concatenate(halves)[back], number)


class HeldOut(NamedTuple):
    """Predictions on held-out images: logits (n, k), and which fold held each image (n,)."""

    logits: Vectors
    folds: Whole


def held_out(probe: Probe, vectors: Vectors, truth: Whole, groups: Whole, folds: int = 5) -> HeldOut:
    """Predict every image once as `out_of_fold` does, without the heads of half the images.

    Raises:
        DataError: there are too few images.
    """
    number, order = np.zeros(len(vectors), dtype=np.int64), []
    logits: list[Vectors] = []
    for fold, (_, held, head) in enumerate(_heads(probe, vectors, truth, groups, folds)):
        logits.append(head.logits(vectors[held]))
        order.append(held)
        number[held] = fold
    return HeldOut(np.concatenate(logits)[np.argsort(np.concatenate(order))], number)


def _heads(
    probe: Probe, vectors: Vectors, truth: Whole, groups: Whole, folds: int
) -> Iterator[tuple[Whole, Whole, Linear]]:
    """Yield of each fold the images that its head is fitted on, those it holds out, and the head."""
    for fitted, held in _folds(probe.strata(truth), groups, folds):
        yield fitted, held, fit_head(probe, vectors[fitted], truth[fitted], groups[fitted])


def _folds(strata: Whole, groups: Whole, most: int) -> list[tuple[Whole, Whole]]:
    from sklearn.model_selection import StratifiedGroupKFold

    number = min(most, int(np.bincount(strata).max()), len(np.unique(groups)))
    if number < 2:
        raise DataError(
            "There are too few images to score a draft: no class has two that are not duplicates. Add images."
        )
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A rare class is missing in some folds. This is no reason to use fewer images of all other classes.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts: list[tuple[Whole, Whole]] = list(splitter.split(strata, strata, groups))
        return parts
