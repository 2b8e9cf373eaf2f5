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


def foretold(case: Case, times: int, seed: int) -> tuple[float, float, int]:
    """Return how well the number of missing images is foretold in duels that cannot tell.

    What was needed is the same formula with the true variances of the model, which a simulation knows. Returned are
    the median ratio, the share within a factor of 1.5, and the number of such duels.
    """
    rng = np.random.default_rng(seed)
    large = duel(case._replace(images=400_000, sd=0.0), rng)
    ratios = []
    for _ in range(times):
        one = duel(case, rng)
        if verdict(one, case.region).kind != "unknown":
            continue
        true = Difference(
            one.value, large.image, 2 * case.sd**2, one.images, one.runs, one.weight, one.freedom
        )
        said, needed = more_images(one, case.region), more_images(true, case.region)
        if said is None or needed is None or needed <= 0:
            needed = needed if needed and needed > 0 else None
            ratios.append(1.0 if said == needed else 99.0)
        else:
            ratios.append((said + one.images) / (needed + one.images))
    close = [max(ratio, 1 / ratio) <= 1.5 for ratio in ratios]
    return float(np.median(ratios)), float(np.mean(close)), len(ratios)


def main(times: int = 4000) -> None:
    """Print all promises beside what was found."""
    print(machine())
    few = max(times // 8, 50)
    for sd in SPREADS:
        none = verdicts(Case(1000, 10, 0.0, sd), times, 1)
        large = verdicts(Case(1000, 10, 0.05, sd), times, 2)
        five = verdicts(Case(1000, 5, 0.05, sd), times, 3)
        same = verdicts(Case(10_000, 10, 0.0, sd, 0.02), few, 4)
        middle, close, number = foretold(Case(1000, 10, 0.02, sd), few, 5)
        print(
            f"trainings differ by {100 * sd:.1f} points: false winners {(none['A'] + none['B']) / times:.1%}; "
            f"5 points at 1,000 images found {large['A'] / times:.1%} (five folds {five['A'] / times:.1%}), "
            f"wrong way {large['B'] / times:.1%}; no difference said at 10,000 images, ± 2: {same['same'] / few:.1%}; "
            f"images foretold: median ratio {middle:.2f}, within 1.5 {close:.1%} of {number}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
