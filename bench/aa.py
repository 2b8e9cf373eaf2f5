"""Duels of a network with itself: how often is a winner called where there is none? Heads on real frozen features.

`python -m bench.aa [--duels 20] [--images 1000] [--imgsz 56]`. Wants ../shared beside the repository. Each duel draws
so many images of CIFAR-10; in every one of ten folds each of the two contestants fits a head on a random four fifths
of the fold's training images of its own, on the same features of ViT-S/14.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from bench.curves import SHARED, features
from bench.pairs import machine
from vitrail.metrics.paired_difference import over_folds, verdict
from vitrail.studies.compare.outcome import said
from vitrail.training.linear_probe import fit

STRENGTH = 0.01
"""The strength of the heads' regression, the same for all."""


def duel(probe, vectors, truth, rng):
    """Return the verdict on two contestants that differ in nothing but the images that they learned from."""
    right = np.zeros((2, len(truth)))
    folds = np.zeros(len(truth), dtype=np.int64)
    splitter = StratifiedKFold(10, shuffle=True, random_state=int(rng.integers(1 << 31)))
    for number, (learned, held) in enumerate(splitter.split(truth, truth)):
        folds[held] = number
        for side in range(2):
            own = rng.choice(learned, len(learned) * 4 // 5, replace=False)
            head = fit(probe, vectors[own], truth[own], STRENGTH)
            right[side, held] = head.logits(vectors[held]).argmax(1) == truth[held]
    found = over_folds(right[0] - right[1], folds, np.arange(len(truth)), len(truth) * 9 // 10)
    return verdict(found)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--duels", type=int, default=20)
    words.add_argument("--images", type=int, default=1000)
    words.add_argument("--imgsz", default="56")
    words.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10-10k.zip")
    words.add_argument("--weights", type=Path, default=SHARED / "weights" / "dinov2-small-saliency")
    asked = words.parse_args()
    if not asked.data.exists() or not asked.weights.exists():
        print("skipped: ../shared/data/cifar10-10k.zip or ../shared/weights is not here")
        return
    print(machine())
    probe, vectors, data = features(asked.data, asked.weights, asked.imgsz)
    rng = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for _ in range(asked.duels):
        some = rng.choice(len(data.truth), asked.images, replace=False)
        found = duel(probe, vectors[some], data.truth[some], rng)
        kinds[found.kind] += 1
        print(said(found, "A", "its twin"), flush=True)
    print(dict(kinds))


if __name__ == "__main__":
    main()
