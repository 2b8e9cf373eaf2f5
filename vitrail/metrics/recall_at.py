"""Retrieval among all images and texts of a set: ranks of the right ones, recall at k, and what chance would reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP = 512
"""Queries whose cosines with all candidates are in memory at a time."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Pairing(NamedTuple):
    """Which of several different texts belong to which images: pair i is (`image[i]`, `text[i]`).

    `images` and `texts` are their numbers. An image may have several texts, and a text several images.
    """

    image: Ints
    text: Ints
    images: int
    texts: int

    def turned(self) -> Pairing:
        """Return the same pairs with images and texts exchanged."""
        return Pairing(self.text, self.image, self.texts, self.images)

    def partners(self) -> list[Ints]:
        """Return the texts of each image."""
        order = np.argsort(self.image, kind="stable")
        ends = np.cumsum(np.bincount(self.image, minlength=self.images))
        return np.split(self.text[order], ends[:-1])


def ranks(image: NDArray[np.float32], text: NDArray[np.float32], pairing: Pairing) -> Ints:
    """Return the rank of the nearest right text of each image, from 1: (n, e), (m, e) -> (n,).

    A wrong text that is as near as the right one is ranked before it, so that equal vectors find nothing, and neither
    do vectors that are not numbers.
    """
    found = np.zeros(len(image), np.int64)
    partners = pairing.partners()
    for start in range(0, len(image), STEP):
        cosines = image[start : start + STEP] @ text.T
        for place, row in enumerate(cosines, start):
            best = row[partners[place]].max()
            row[partners[place]] = -np.inf
            found[place] = min(1 + int(np.count_nonzero(~(row < best))), len(text))
    return found


def chance(pairing: Pairing, k: int) -> Floats:
    """Return the probability that a random order of the texts has a right one among the first k, by image: (n,)."""
    right = np.bincount(pairing.image, minlength=pairing.images).astype(np.float64)
    wrong = pairing.texts - right
    missed = np.ones(pairing.images)
    for taken in range(min(k, pairing.texts)):
        missed *= np.maximum(wrong - taken, 0) / (pairing.texts - taken)
    chances: Floats = 1 - missed
    return chances


def recall_at(rank: Ints, k: int, weights: Floats) -> float:
    """Return the weighted share of queries whose rank is at most k."""
    return float(weights @ (rank <= k) / weights.sum())


def median_rank(rank: Ints, weights: Floats) -> float:
    """Return the weighted median of ranks: the smallest that at least half of the weight does not exceed."""
    order = np.argsort(rank, kind="stable")
    passed = np.cumsum(weights[order])
    return float(rank[order][np.searchsorted(passed, passed[-1] / 2)])


def pairing_of(captions: Sequence[Sequence[str]]) -> tuple[Pairing, tuple[str, ...], Ints]:
    """Return the pairs of images and different captions, these captions, and the first pair of each among all pairs.

    Captions that differ in capitals or spaces only are equal, as the towers read them.
    """
    places: dict[str, int] = {}
    texts: list[str] = []
    firsts: list[int] = []
    image: list[int] = []
    text: list[int] = []
    for owner, several in enumerate(captions):
        for caption in several:
            key = " ".join(caption.casefold().split())
            if key not in places:
                places[key] = len(places)
                texts.append(caption)
                firsts.append(len(image))
            image.append(owner)
            text.append(places[key])
    pairs = Pairing(np.array(image, np.int64), np.array(text, np.int64), len(captions), len(places))
    return pairs, tuple(texts), np.array(firsts, np.int64)
