"""Do the verdicts of `vitrail compare` keep their promises? 4,000 simulated duels of two networks.

`python -m bench.duels [DUELS]`. The model: an image has a difficulty, normal on the logit scale (sd 5 around 4.5, so
that both networks are right on about four of five and answer about one image in eight differently); a training shifts
the accuracy of its network by a normal effect of `sd` points; the two true accuracies differ by `gap`. Ten folds.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from vitrail.infer.timing import machine
from vitrail.metrics.paired_difference import Difference, more_images, over_folds, verdict

SPREADS = (0.0, 0.005, 0.015)


class Case(NamedTuple):
    """One setting of the simulation: test images, folds, true difference, spread of trainings, region."""

    images: int
    folds: int
    gap: float
    sd: float
    region: float = 0.01


def duel(case: Case, rng: np.random.Generator) -> Difference:
    """Simulate one duel and measure its difference."""
    fold = np.arange(case.images) % case.folds
    p = expit(4.5 + rng.normal(0, 5, case.images))
    slope = p * (1 - p) / np.mean(p * (1 - p))  # a shift moves the images that are neither easy nor hopeless
    right = [
        _answers(p, slope, half + rng.normal(0, case.sd, case.folds)[fold], rng)
        for half in (case.gap / 2, -case.gap / 2)
    ]
    trained = case.images - case.images // case.folds
    return over_folds(right[0] - right[1], fold, np.arange(case.images), trained)


def _answers(
    p: NDArray[np.float64], slope: NDArray[np.float64], shift: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    return (rng.random(len(p)) < np.clip(p + shift * slope, 0, 1)).astype(np.float64)


def verdicts(case: Case, times: int, seed: int) -> Counter[str]:
    """Count what is said in so many duels: A or B is better, same, unknown."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(times):
        said = verdict(duel(case, rng), case.region)
        found["A" if said.difference > 0 else "B"] += said.kind == "better"
        found[said.kind] += said.kind != "better"
    return found


def foretold(case: Case, times: int, seed: int) -> tuple[float, float, int, int]:
    """Return how well the number of missing images is foretold in duels that cannot tell.

    What was needed follows from the variances of the model, which the simulation knows: the images at which an interval
    around the same difference leaves 0 or lies inside the region. Returned are the median ratio of the missing images,
    the share within a factor of 1.5, the number of duels where both are numbers, and of those where one is none.
    """
    rng = np.random.default_rng(seed)
    image = duel(case._replace(images=400_000, sd=0.0), rng).image
    ratios, apart = [], 0
    for _ in range(times):
        one = duel(case, rng)
        if verdict(one, case.region).kind != "unknown":
            continue
        half = max(abs(one.value), case.region - abs(one.value)) / 1.96
        allowed = half**2 - 2 * case.sd**2 * one.weight
        needed = image / allowed - one.images if allowed > 0 else 0.0
        said = more_images(one, case.region)
        if said is not None and needed > 0:
            ratios.append(said / needed)
        else:
            apart += (said is not None) != (needed > 0)
    close = [max(ratio, 1 / ratio) <= 1.5 for ratio in ratios]
    return float(np.median(ratios)), float(np.mean(close)), len(ratios), apart


def main(times: int = 4000) -> None:
    """Print all promises beside what was found."""
    print(machine())
    few = max(times // 8, 50)
    for sd in SPREADS:
        none = verdicts(Case(1000, 10, 0.0, sd), times, 1)
        large = verdicts(Case(1000, 10, 0.05, sd), times, 2)
        five = verdicts(Case(1000, 5, 0.05, sd), times, 3)
        fewer = [verdicts(Case(1000, folds, 0.0, sd), times, 6) for folds in (5, 3)]
        same = verdicts(Case(10_000, 10, 0.0, sd, 0.02), few, 4)
        middle, close, number, apart = foretold(Case(1000, 10, 0.02, sd), times // 4, 5)
        wrong = [f"{(one['A'] + one['B']) / times:.1%}" for one in (none, *fewer)]
        print(
            f"trainings differ by {100 * sd:.1f} points: false winners {wrong[0]} (five folds {wrong[1]}, three "
            f"{wrong[2]}); 5 points at 1,000 images found {large['A'] / times:.1%} (five folds "
            f"{five['A'] / times:.1%}); no difference said at 10,000 images, ± 2: {same['same'] / few:.1%}; images "
            f"foretold: median ratio {middle:.2f}, within 1.5 {close:.1%} of {number}, {apart} where one side is none",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
