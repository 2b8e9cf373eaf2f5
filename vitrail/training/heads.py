"""Linear heads on frozen features by scikit-learn, and their answers on pictures that they had not seen.

`truth` is the class of each picture (n,), or a 0 or 1 for each of its labels (n, k). `groups` numbers what must stay
together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.core.errors import DataError

Vectors = NDArray[np.float32]
Whole = NDArray[np.int64]
STRENGTHS = (0.003, 0.03, 0.3)
"""Inverse strengths of the head's regularisation that are tried, on features of deviation 1."""

NEVER = -30.0
"""The logit of a class without a picture in this part: it is possible in no answer."""


class Head(NamedTuple):
    """A linear classifier on vectors: logits = x weightᵀ + bias."""

    weight: Vectors  # (k, d)
    bias: Vectors  # (k,)
    strength: float

    def logits(self, vectors: Vectors) -> Vectors:
        """(n, d) -> (n, k)."""
        found: Vectors = vectors @ self.weight.T + self.bias
        return found

    def put_into(self, linear: nn.Linear) -> None:
        """Give a network's last layer these numbers."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


def fit_head(vectors: Vectors, truth: Whole, groups: Whole, classes: int) -> Head:
    """Fit logistic regression (multinomial, or one a label), its regularisation chosen on a fifth held back inside."""
    from sklearn.model_selection import GroupShuffleSplit

    if len(np.unique(groups)) < 2:
        return fit(vectors, truth, classes, STRENGTHS[1])
    inner, outer = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(vectors, truth, groups))
    worth = {
        head.strength: _worth(head.logits(vectors[outer]), truth[outer])
        for head in _path(vectors[inner], truth[inner], classes, STRENGTHS)
    }
    return fit(vectors, truth, classes, max(worth, key=worth.__getitem__))


def fit(vectors: Vectors, truth: Whole, classes: int, strength: float) -> Head:
    """Fit the head at one strength."""
    return next(_path(vectors, truth, classes, (strength,)))


def _worth(logits: Vectors, truth: Whole) -> float:
    """Return how good answers are, the more the better: the share right, or minus the cross entropy of labels."""
    if truth.ndim == 1:
        return float((logits.argmax(1) == truth).mean())
    return -float(np.logaddexp(0.0, np.where(truth > 0, -logits, logits)).mean())


def _path(vectors: Vectors, truth: Whole, classes: int, strengths: Sequence[float]) -> Iterator[Head]:
    """Fit a head at each strength, each from where the one before ended; the features' scale is folded in."""
    mean, deviation = vectors.mean(0), vectors.std(0) + 1e-6
    scaled = (vectors - mean) / deviation
    fitted = _of_classes if truth.ndim == 1 else _of_labels
    for weight, bias, strength in fitted(scaled, truth, classes, strengths):
        unscaled = weight / deviation
        yield Head(unscaled, bias - unscaled @ mean, strength)


def _of_classes(scaled: Vectors, truth: Whole, classes: int, strengths: Sequence[float]) -> Iterator[Head]:
    model, present = _regression(), np.unique(truth)
    for strength in strengths:
        weight = np.zeros((classes, scaled.shape[1]), dtype=np.float32)
        bias = np.full(classes, NEVER, dtype=np.float32)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            model.set_params(C=strength).fit(scaled, truth)
            weight[present], bias[present] = _rows(model.coef_), _rows(model.intercept_)
        yield Head(weight, bias, strength)


def _of_labels(scaled: Vectors, truth: Whole, classes: int, strengths: Sequence[float]) -> Iterator[Head]:
    models = [_regression() for _ in range(classes)]
    for strength in strengths:
        weight = np.zeros((classes, scaled.shape[1]), dtype=np.float32)
        there = truth.sum(0)
        # Where all pictures of this part agree, their number is all that is known.
        bias = np.log((there + 0.5) / (len(truth) - there + 0.5)).astype(np.float32)
        for i in np.flatnonzero((there > 0) & (there < len(truth))):
            models[i].set_params(C=strength).fit(scaled, truth[:, i])
            weight[i], bias[i] = models[i].coef_[0], models[i].intercept_[0]
        yield Head(weight, bias, strength)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)


def _rows(numbers: Vectors) -> Vectors:
    """Return one row a class: scikit-learn keeps one for a pair, the second against the first."""
    if len(numbers) > 1:
        return numbers
    halves: Vectors = (np.concatenate([-numbers, numbers]) / 2).astype(np.float32)
    return halves


class OutOfFold(NamedTuple):
    """What heads said of pictures that they had not seen: logits (n, k), the same from half the pictures, the folds."""

    logits: Vectors
    half: Vectors
    folds: Whole  # (n,): which fold held each picture


def out_of_fold(vectors: Vectors, truth: Whole, groups: Whole, classes: int, folds: int = 5) -> OutOfFold:
    """Score every picture once by a head that saw neither it nor its group (stratified, grouped folds).

    Several labels are stratified by the rarest of each picture. DataError where there are too few pictures.
    """
    from sklearn.model_selection import GroupShuffleSplit

    logits = np.zeros((len(vectors), classes), dtype=np.float32)
    half, number = np.zeros_like(logits), np.zeros(len(vectors), dtype=np.int64)
    for fold, (learnt, held) in enumerate(_folds(_strata(truth), groups, folds)):
        head = fit_head(vectors[learnt], truth[learnt], groups[learnt], classes)
        logits[held], number[held] = head.logits(vectors[held]), fold
        part = learnt
        if len(np.unique(groups[learnt])) > 1:
            split = GroupShuffleSplit(1, train_size=0.5, random_state=0)
            part = learnt[next(split.split(learnt, truth[learnt], groups[learnt]))[0]]
        half[held] = fit(vectors[part], truth[part], classes, head.strength).logits(vectors[held])
    return OutOfFold(logits, half, number)


def _strata(truth: Whole) -> Whole:
    """Return what folds shall hold alike of: the class, or the rarest label of each picture (k: none)."""
    if truth.ndim == 1:
        return truth
    rarity = np.where(truth > 0, truth.sum(0), len(truth) + 1)
    strata: Whole = np.where(truth.any(1), rarity.argmin(1), truth.shape[1])
    return strata


def _folds(strata: Whole, groups: Whole, most: int) -> list[tuple[Whole, Whole]]:
    from sklearn.model_selection import StratifiedGroupKFold

    number = min(most, int(np.bincount(strata).max()), len(np.unique(groups)))
    if number < 2:
        raise DataError(
            "There are too few pictures to score a draft: no class has two that are not twins. Add pictures."
        )
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A rare class is missing in some folds; it is no reason to learn from fewer pictures of all others.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts: list[tuple[Whole, Whole]] = list(splitter.split(strata, strata, groups))
        return parts
