"""A limit for "none of these", fitted on unlabelled images: below it an image fits no word better than others do.

For each word, the images that fit another word better show how similar to it an image is that does not show it: their
median and spread are its level. An image gets its word if it lies above this level by more than the best of as many
normal numbers as there are words would reach in 5 of 100 cases. Images without a word join the others, and the levels
are taken again until nothing changes. Nothing is assumed of the language, the network or the number of such images, but
the images of each word must be a part of all: a word that nearly all images fit has no level, and nothing is said of
its images.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 50
"""Smallest number of different images for a limit."""

OTHERS, SHARE = 20, 0.25
"""Smallest number and share of images that show something else, for the level of a word."""

ERROR = 0.05
"""Share of images that show none of the words and still get one, if they are like those that show another word."""

ROUNDS = 50
"""Most rounds of taking the levels; a few are enough."""

TESTED = 30
"""Smallest number of images on which the error is measured by leaving words out."""

_NORMAL = 1.4826  # from the median of absolute deviations to the standard deviation of a normal distribution

Floats = NDArray[np.float64]


class Levels(NamedTuple):
    """The similarity of a word to images without it: median and spread, (k,) each, NaN where it is not known."""

    middle: Floats
    spread: Floats

    def heights(self, scores: Floats) -> Floats:
        """Return how many spreads the scores (n, k) lie above the levels; NaN where a level is not known."""
        lifted: Floats = (scores - self.middle) / self.spread
        return lifted


class Measured(NamedTuple):
    """How often an image was named although its word had been left out, and of how many images."""

    wrong: int
    tested: int

    @property
    def share(self) -> float:
        """The share of wrong names."""
        return self.wrong / self.tested


class NoneLimit(NamedTuple):
    """Which images are none of these, (n,), of which anything is said, (n,), and the error as it was measured."""

    none: NDArray[np.bool_]
    told: NDArray[np.bool_]
    measured: Measured | None


def fit_limit(scores: NDArray[Any], neutral: NDArray[Any]) -> NoneLimit | None:
    """Return which images fit none of the words; None if there are too few images.

    `scores` are the cosines of images and words, (n, k); `neutral` those of images and texts that say nothing, (n, m),
    which stand for all other things where only one word is left.
    """
    if len(scores) < LEAST:
        return None
    # Some images are more similar to any text than others: what counts is how much they differ from text to text.
    own = np.concatenate([scores, neutral], 1).mean(1, keepdims=True)
    scores, neutral = np.asarray(scores - own, np.float64), np.asarray(neutral - own, np.float64)
    none, levels = _none(scores, neutral)
    told = none | np.isfinite(levels.middle)[scores.argmax(1)]
    return NoneLimit(none, told, _measure(scores, neutral, none))


def _none(scores: Floats, neutral: Floats) -> tuple[NDArray[np.bool_], Levels]:
    """Return which images fit none of the words, and the levels of the words."""
    words = scores.shape[1]
    least = NormalDist().inv_cdf((1 - ERROR) ** (1 / words))
    rivals = np.concatenate([scores, neutral], 1) if words == 1 else scores
    winner = rivals.argmax(1)
    outside = winner >= words  # nearest to a text that says nothing
    none, levels = outside, _levels(scores, winner, outside)
    for _ in range(ROUNDS):
        heights = levels.heights(scores)[np.arange(len(scores)), np.where(outside, 0, winner)]
        now = outside | (heights <= least)  # without a level no claim is made: NaN is not below
        if (now == none).all():
            break
        none, levels = now, _levels(scores, winner, now)
    return none, levels


def _levels(scores: Floats, winner: NDArray[np.int64], none: NDArray[np.bool_]) -> Levels:
    middle, spread = (np.full(scores.shape[1], np.nan) for _ in range(2))
    for word, column in enumerate(scores.T):
        others = column[(winner != word) | none]
        if len(others) < max(OTHERS, SHARE * len(scores)):
            continue
        middle[word] = np.median(others)
        spread[word] = max(_NORMAL * np.median(np.abs(others - middle[word])), 1e-9)
    return Levels(middle, spread)


def _measure(scores: Floats, neutral: Floats, none: NDArray[np.bool_]) -> Measured | None:
    """Return how many images are named although their word is left out; None if there are too few of them."""
    words = scores.shape[1]
    if words < 3:
        return None
    winner, wrong, tested = scores.argmax(1), 0, 0
    for word in range(words):
        own = (winner == word) & ~none
        if not own.any() or len(scores) - own.sum() < OTHERS:
            continue
        again, levels = _none(np.delete(scores, word, 1), neutral)
        nearest = np.delete(scores, word, 1).argmax(1)
        told = own & np.isfinite(levels.middle)[nearest]
        wrong, tested = wrong + int((told & ~again).sum()), tested + int(told.sum())
    return Measured(wrong, tested) if tested >= TESTED else None
