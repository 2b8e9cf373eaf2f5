"""Areas of the classes of a map, with intervals, from a reference sample (Olofsson et al. 2014).

doi:10.1016/j.rse.2014.02.015. Pixels of a map cannot be counted as areas, because mistakes of the map do not cancel
out. The sample says how often each mapped class is which class in truth; weighted by the mapped areas this gives areas
without bias. The strata are the mapped classes, the sample within each is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.core.errors import DataError

Array = NDArray[np.float64]

Z = NormalDist().inv_cdf(0.975)
"""Standard errors on either side of a 95 % interval."""


class Estimate(NamedTuple):
    """A value and its standard error, in the unit of the value; NaN: not defined, or not known from this sample."""

    value: float
    error: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.value - Z * self.error

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval."""
        return self.value + Z * self.error

    def to_dict(self) -> dict[str, float | None]:
        """Return value, standard error and interval as plain data, nine digits; null where they are not known."""
        values = {"value": self.value, "error": self.error, "low": self.low, "high": self.high}
        return {name: float(f"{one:.9g}") if np.isfinite(one) else None for name, one in values.items()}


class ClassArea(NamedTuple):
    """One class: its mapped and its estimated area, in the unit of the mapped areas, and its accuracies (shares).

    `users` is the share of what is mapped as the class that is the class (precision), `producers` the share of the
    class that is mapped as it (recall).
    """

    name: str
    mapped: float
    area: Estimate
    users: Estimate
    producers: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        estimates = {name: getattr(self, name).to_dict() for name in ("area", "users", "producers")}
        return {"name": self.name, "mapped": self.mapped, **estimates}


class AreaEstimate(NamedTuple):
    """The areas of all classes, and the overall accuracy of the map (a share)."""

    classes: tuple[ClassArea, ...]
    accuracy: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"accuracy": self.accuracy.to_dict(), "classes": [one.to_dict() for one in self.classes]}


def estimate_areas(names: Sequence[str], sample: ArrayLike, mapped: Sequence[float]) -> AreaEstimate:
    """Return areas with standard errors from counts of a sample (k, k): rows mapped, columns reference classes.

    `mapped` (k,) are the mapped areas of the classes, in pixels, hectares or another unit; areas come back in it.
    A class that the map never shows has no stratum and needs no sample.

    Raises:
        DataError: a mapped class has fewer than two places in the sample, or one outside of the map, or the numbers
            do not belong together.
    """
    counts, areas = np.asarray(sample, np.float64), np.asarray(mapped, np.float64)
    _refuse_unfit(names, counts, areas)
    places, total = counts.sum(1), areas.sum()
    weights = areas / total
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(places[:, None] > 0, counts / places[:, None], 0.0)
        spread = np.where(places[:, None] > 0, shares * (1 - shares) / (places[:, None] - 1), 0.0)
    spread = np.nan_to_num(spread)
    proportions = weights @ shares  # eq. 9
    errors = np.sqrt(weights**2 @ spread)  # eq. 10
    users, users_error = np.diagonal(shares), np.sqrt(np.diagonal(spread))  # eq. 2 and 6
    right = weights * users  # the diagonal of the matrix of area proportions
    accuracy = Estimate(
        float(right.sum()), float(np.sqrt((weights**2 * np.diagonal(spread)).sum()))
    )  # eq. 1, 5
    producers, producers_error = _producers(weights, shares, spread, proportions)
    unseen = places == 0
    classes = [
        ClassArea(
            name,
            float(areas[i]),
            Estimate(float(total * proportions[i]), float(total * errors[i])),
            Estimate(np.nan, np.nan) if unseen[i] else Estimate(float(users[i]), float(users_error[i])),
            Estimate(float(producers[i]), float(producers_error[i])),
        )
        for i, name in enumerate(names)
    ]
    return AreaEstimate(tuple(classes), accuracy)


def _producers(weights: Array, shares: Array, spread: Array, proportions: Array) -> tuple[Array, Array]:
    """Return producer's accuracy of each class and its standard error (eq. 3 and 7), NaN where no class is there."""
    own = np.diag(weights**2 * np.diagonal(spread))
    every = weights[:, None] ** 2 * spread
    with np.errstate(invalid="ignore", divide="ignore"):
        producers = weights * np.diagonal(shares) / proportions
        variance = (
            np.diagonal(own) * (1 - producers) ** 2 + producers**2 * (every - own).sum(0)
        ) / proportions**2
    return producers, np.sqrt(variance)


def _refuse_unfit(names: Sequence[str], counts: Array, areas: Array) -> None:
    k = len(names)
    if counts.shape != (k, k) or areas.shape != (k,):
        raise DataError(
            f"{k} classes need {k} x {k} counts and {k} mapped areas; there are {counts.shape} and {areas.shape}. Give "
            "all classes in one order."
        )
    numbers = np.concatenate([counts.ravel(), areas])
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not areas.sum() > 0:
        raise DataError("Counts and mapped areas are numbers from 0 on, and some area is mapped. Mend them.")
    places = counts.sum(1)
    few = [name for name, area, many in zip(names, areas, places, strict=True) if area > 0 and many < 2]
    if few:
        raise DataError(
            f"The sample has fewer than two places that are mapped as {', '.join(few)}, so that areas cannot be "
            "estimated. Add reference places there, or join the class with another one."
        )
    outside = [name for name, area, many in zip(names, areas, places, strict=True) if area == 0 and many > 0]
    if outside:
        raise DataError(
            f"The sample has places that are mapped as {', '.join(outside)}, but the map shows none of it. Take a map "
            "and a sample of one area."
        )
