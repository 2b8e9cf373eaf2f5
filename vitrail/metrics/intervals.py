"""Confidence intervals of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 10
"""With fewer images of a class, no bootstrap interval is reported."""

FEWEST_GROUPS = 5
"""With fewer groups of one origin, no bootstrap interval is reported: it would be far too narrow."""

ORIGIN = "g:"
"""The beginning of the key of a group of one origin."""

DRAWS = 1000
MOST = 1_000_000
"""Units × classes (of rankings: images × classes) above which resampling would take minutes; the scores are then
reported without interval."""


class Interval(NamedTuple):
    """A score with its 95 % interval: a share from 0 to 1, but for kappa and differences, which may be below 0."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data, six digits."""
        return {name: round(part, 6) for name, part in self._asdict().items()}

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %, {100 * self.low:.1f} – {100 * self.high:.1f}"


class Unsure(NamedTuple):
    """A score without an interval, and the reason."""

    value: float | None
    why: str
    low: None = None
    high: None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, six digits; the interval is null."""
        value = None if self.value is None else round(self.value, 6)
        return {"value": value, "low": None, "high": None, "why": self.why}


Score = Interval | Unsure


def wilson(right: float, count: float, confidence: float = 0.95) -> Interval:
    """Return a share with Wilson's interval (1927, JASA 22), which is accurate also near 0 and 1.

    Without images the interval is 0 … 1.
    """
    if count == 0:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # At 0 and 1, rounding must not move the share out of its own interval.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


class Units(NamedTuple):
    """What is drawn as one when images are resampled: the unit of each image (n,), and the number of units.

    `whole` says that some unit holds several images of one origin (patients, videos, blocks of a map).
    """

    member: NDArray[np.int64]
    number: int
    whole: bool

    @property
    def groups(self) -> int | None:
        """The number of groups for `bootstrap`; None where images, or duplicates, are drawn."""
        return self.number if self.whole else None


def units_of(groups: Sequence[str]) -> Units:
    """Return the units of images from one key per image, as `vitrail.data.manifest.group_key` writes them."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    whole = any(name.startswith(ORIGIN) for name in names[sizes > 1].tolist())
    return Units(member, len(names), whole)


def of_groups(right: Sequence[float], groups: Sequence[str]) -> Interval:
    """Return a share of images with its interval, in which groups, not images, are the independent evidence.

    `groups` holds one key per image. Groups of one origin are resampled as wholes (percentile bootstrap). Duplicates,
    fewer than five groups, and groups that show no mistake are each assumed to be correct or wrong as a whole, so n
    images in groups of sizes m are worth n² / Σ m² independent images (Kish 1965, Survey Sampling).
    """
    if not groups:
        return wilson(0, 0)
    units = units_of(groups)
    if units.whole and units.number >= FEWEST_GROUPS:
        found = resampled_mean(right, units)
        if isinstance(found, Interval):
            return found
    sizes = Counter(groups).values()
    worth = len(groups) ** 2 / sum(size * size for size in sizes)
    return wilson(sum(right) / len(groups) * worth, worth)


def of_class(right: Sequence[float], groups: Sequence[str]) -> Interval:
    """Return the share of the images of one class: by groups of one origin where there are some, else Wilson's."""
    if units_of(groups).whole:
        return of_groups(right, groups)
    return wilson(sum(right), len(groups))


def resampled_mean(values: Sequence[float], units: Units) -> Score:
    """Return the mean of one value per image with its percentile interval over units (`Interval` in its unit)."""
    sums = np.bincount(units.member, weights=np.asarray(values, np.float64), minlength=units.number)
    sizes = np.bincount(units.member, minlength=units.number)
    drawn = resampled_units(units.number)
    return bootstrap(float(np.mean(values)), (drawn @ sums) / (drawn @ sizes), len(values), units.groups)


def resampled_units(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Return how often each unit is drawn in each of 1,000 bootstrap samples: (draws, count)."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)


def resampled(groups: Sequence[str], seed: int = 0) -> NDArray[np.float64]:
    """Return how often each image is drawn in each of 1,000 bootstrap samples of whole groups: (draws, n)."""
    units = units_of(groups)
    return resampled_units(units.number, seed)[:, units.member]


def bootstrap(value: float, samples: NDArray[np.float64], images: int, groups: int | None = None) -> Score:
    """Return a score with its percentile interval (Efron 1979) from its values in bootstrap samples.

    `groups` is the number of groups of one origin behind the score, if those were drawn. Percentiles of few groups are
    too narrow, so their levels are those of Student's t (Hesterberg 2015, The American Statistician 69, section 5.1).
    Return `Unsure` where too few images, groups or values allow no interval.
    """
    if not np.isfinite(value):
        return Unsure(None, "not defined on these images")
    if images < FEWEST:
        return Unsure(value, f"fewer than {FEWEST} images")
    if groups is not None and groups < FEWEST_GROUPS:
        return Unsure(value, f"fewer than {FEWEST_GROUPS} groups to resample")
    finite = samples[np.isfinite(samples)]
    if len(finite) < DRAWS // 2:
        return Unsure(value, "too few images to resample")
    tail = _tail(groups)
    low, high = np.quantile(finite, [tail, 1 - tail])
    if high - low < 1e-9:
        return Unsure(value, "no mistake to resample")
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _tail(groups: int | None) -> float:
    """Return the share of the samples below a 95 % interval."""
    if groups is None:
        return 0.025
    from scipy.stats import t  # slow to import, and most data sets have no groups

    wide = float(t.ppf(0.975, groups - 1)) * (groups / (groups - 1)) ** 0.5
    return NormalDist().cdf(-wide)
