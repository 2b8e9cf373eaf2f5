"""How much better one contestant is than another on the same images, over several trainings of both.

Two things make the difference of two accuracies uncertain: which images happen to be in the test, and which training
run happens to be tested (split, order, augmentation, initial weights). Both are estimated as components of variance,
and both stand in one interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["better", "same", "unknown"]

CONFIDENCE = 0.95
REGION = 0.01
"""Differences of the accuracy up to this size do not matter to most users; `--region` sets another."""

POOLED = 0.25
"""Above this p-value of the test for a variance between runs none is taken to be there (Bancroft 1944, Ann. Math. Stat.
15), where there are at least `FEW_RUNS`. Without it the intervals of `over_folds` are wider than they have to be, with
0.1 they are too narrow where trainings differ by 1.5 points: `bench/duels.py` has the figures."""

FEW_RUNS = 10
"""With fewer runs than these a variance between them is seldom noticed, so it is never left out."""

USUAL = 0.004
"""The usual standard deviation of a network's accuracy from one training to the next, in parts of one, where the runs
tell no more: between nothing and 0.5 points for most (Jordan 2024, arXiv:2304.01910)."""


@dataclass(frozen=True)
class Difference:
    """A mean difference and where its variance comes from, in parts of one.

    variance = `image` / images + `run` · weight: `image` is the variance of one image's difference, `run` that of a
    training run, `weight` what the runs that were made leave of it (one over their number, and for folds the correction
    for overlapping training sets). `least` is the smallest `run` that the data allow (one-sided, 95 %).
    """

    value: float
    image: float
    run: float
    images: int
    runs: int
    weight: float
    freedom: float
    least: float = 0.0

    @property
    def variance(self) -> float:
        """The variance of the mean difference."""
        return self.image / self.images + self.run * self.weight

    @property
    def p(self) -> float:
        """The two-sided p-value of a difference this large where there is none."""
        from scipy.stats import t

        if self.variance == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * t.sf(abs(self.value) / math.sqrt(self.variance), self.freedom))

    def half(self, confidence: float = CONFIDENCE) -> float:
        """Return half the width of the interval."""
        return _quantile(confidence, self.freedom) * math.sqrt(self.variance)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the lower and the upper end of the interval."""
        half = self.half(confidence)
        return self.value - half, self.value + half


def over_folds(
    differences: Array, folds: NDArray[np.int64], units: NDArray[np.int64], trained: int
) -> Difference:
    """Return the mean difference of images (n,) of which each was tested in one of several folds.

    `units` numbers the groups (duplicates, one scene, one patient) whose images are no independent evidence; `trained`
    is the number of training images of a fold. The variance between folds beyond what their images explain is that of
    the training runs; it counts 1/K + n_test/n_train times, because the training sets overlap (Nadeau and Bengio 2003,
    Machine Learning 52, eq. 9). Degrees of freedom: Satterthwaite 1946 (Biometrics 2).
    """
    n, names = len(differences), np.unique(folds)
    k = len(names)
    means = np.array([differences[folds == name].mean() for name in names])
    sizes = np.array([(folds == name).sum() for name in names], dtype=float)
    residuals = differences - means[np.searchsorted(names, folds)]
    within = _of_units(residuals, units) * n / max(n - k, 1) + _unseen(differences)
    between = float((sizes * (means - differences.mean()) ** 2).sum()) / (k - 1)
    weight = 1 / k + (n / k) / trained
    return _composed(float(differences.mean()), within, between, n, k, weight)


def over_seeds(differences: Array, units: NDArray[np.int64]) -> Difference:
    """Return the mean difference of images that every one of several runs was tested on: `differences` is (runs, n).

    A two-way layout with one value a cell, both ways drawn at random: the variance of the mean is
    (MS_images + MS_runs - MS_rest) / (runs · n) (Searle, Casella and McCulloch 1992, Variance Components, ch. 4).
    """
    from scipy.stats import f

    k, n = differences.shape
    value = float(differences.mean())
    images = differences.mean(0) - value
    image = _of_units(images, units) * n / max(n - 1, 1) + _unseen(differences)
    if k == 1:
        return Difference(value, image, 0.0, n, 1, 1.0, max(n - 1, 1))
    runs = differences.mean(1) - value
    rest = differences - value - images - runs[:, None]
    ms_rest = float((rest**2).sum()) / ((k - 1) * max(n - 1, 1))
    ms_runs = n * float((runs**2).sum()) / (k - 1)
    run = max(0.0, (ms_runs - ms_rest) / n)
    freedom = float(n - 1)
    if run > 0:
        parts = (image / n, ms_runs / (n * k), -ms_rest / (n * k))
        spread = parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (k - 1) + parts[2] ** 2 / ((k - 1) * (n - 1))
        freedom = sum(parts) ** 2 / spread
    least = max(0.0, (ms_runs / float(f.ppf(CONFIDENCE, k - 1, (k - 1) * max(n - 1, 1))) - ms_rest) / n)
    return Difference(value, image, run, n, k, 1 / k, freedom, least)


def _composed(value: float, within: float, between: float, n: int, k: int, weight: float) -> Difference:
    """Return the difference from the mean squares within folds and between them."""
    from scipy.stats import f

    run = (between - within) / (n / k)
    pooled = k >= FEW_RUNS and within > 0 and f.sf(between / within, k - 1, n - k) > POOLED
    if run <= 0 or pooled:
        return Difference(value, within, 0.0, n, k, weight, n - k)
    share = weight / (n / k)
    parts = (share * between, (1 / n - share) * within)
    spread = parts[0] ** 2 / (k - 1) + parts[1] ** 2 / (n - k)
    least = max(0.0, (between / float(f.ppf(CONFIDENCE, k - 1, n - k)) - within) / (n / k))
    freedom = sum(parts) ** 2 / spread if spread else n - k
    return Difference(value, within, run, n, k, weight, freedom, least)


def _of_units(residuals: Array, units: NDArray[np.int64]) -> float:
    """Return the variance that one image adds to the sum, where images of a unit go together."""
    sums = np.bincount(units, weights=residuals)
    return float((sums**2).sum()) / len(residuals)


def _unseen(differences: Array) -> float:
    """Return the variance of one more image that the two answer differently, where answers are right or wrong.

    Without it two networks that agree on every image of a few would be equal beyond doubt (Agresti and Min 2005, Stat.
    Med. 24, add half an image to each cell of the table).
    """
    counted = bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())
    return 1 / differences.shape[-1] if counted else 0.0


def _quantile(confidence: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, freedom))


class Verdict(NamedTuple):
    """What a difference allows to say: `better` (its sign tells who), `same` (inside the region), or `unknown`.

    `passes`: better, and by more than the region. `more`: how many more test images would tell if the difference stays;
    None where images alone would not.
    """

    kind: Kind
    difference: float
    low: float
    high: float
    region: float
    confidence: float
    runs: int = 1
    passes: bool = False
    more: int | None = None


def verdict(difference: Difference, region: float = REGION, confidence: float = CONFIDENCE) -> Verdict:
    """Return what may be said of a difference at a confidence, which `holm` raises where several pairs are compared."""
    low, high = difference.interval(confidence)
    found = Verdict("unknown", difference.value, low, high, region, confidence, difference.runs)
    if low > 0 or high < 0:
        return found._replace(kind="better", passes=low > region or high < -region)
    if -region < low and high < region:
        return found._replace(kind="same")
    return found._replace(more=more_images(difference, region, confidence))


def more_images(difference: Difference, region: float = REGION, confidence: float = CONFIDENCE) -> int | None:
    """Return how many more test images would bring a verdict if the difference stays as it is.

    That is when the interval leaves 0 on one side, or lies inside the region. None where the variance of the training
    runs alone is too large for it: then more runs are what is missing. Few runs tell little of that variance, so it is
    taken to be the least that they allow, or the usual one if that is larger.
    """
    half = max(abs(difference.value), region - abs(difference.value))
    squared = (half / NormalDist().inv_cdf(0.5 + confidence / 2)) ** 2
    allowed = (
        squared - max(difference.least, 2 * USUAL**2 if difference.runs > 1 else 0.0) * difference.weight
    )
    if allowed <= 0 and difference.least == 0:
        allowed = squared
    more = math.ceil(difference.image / allowed) - difference.images if allowed > 0 else 0
    return more if more > 0 else None


def holm(values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[float]:
    """Return for each p-value the confidence at which its interval is to be read (Holm 1979, Scand. J. Statist. 6).

    Those of the smallest p-values are read strictest; after the first that is not rejected all the others are read at
    that confidence or a stricter one, so that none of them is called a difference.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    found, strictest, open_ = [0.0] * len(values), 0.0, True
    for rank, at in enumerate(order):
        own = 1 - level / (len(values) - rank)
        open_ = open_ and values[at] < level / (len(values) - rank)
        strictest = strictest if strictest and not open_ else own
        found[at] = own if open_ else strictest
    return found
