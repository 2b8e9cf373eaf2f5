"""Learning curves: how the error falls with the number of training images, and what twice as many would bring.

The error is described by a family of functions (Mahmood et al. 2022, arXiv:2207.01725): a power law, a logarithm, an
arctangent, an algebraic root. Each is offset + scale · shape(n), the shape one of a few on a grid, so that offset and
scale are weighted least squares in closed form. In each bootstrap draw the images of the test part are drawn anew by
groups, the points move by what redraws of the training images are worth, and one member is drawn, the more probably
the better it foretells the largest size from the smaller ones. What the best members miss there beyond noise widens
the interval. A rise of the error is fitted like a fall: 14 % of curves are not well-behaved (LCDB 1.1,
arXiv:2505.15657), and no curve is bent to look as if it were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 200
CONFIDENCE = 0.8

FEWEST = 5
"""Images a class below which a curve is not yet a line (Jain et al. 2023, arXiv:2303.01598)."""

POINTS = 3
"""Sizes below which nothing is fitted."""

SURE = 0.9
"""Share of the draws from which on a rise of the error is told."""

FLOOR = 0.25
"""Share of the foretold gain that the extrapolation is always taken to miss (standard deviation)."""

NARROW = 2.0
"""Ratio of the ends of an interval up to which "you need N" is told."""


@dataclass(frozen=True)
class Points:
    """What heads from so many training images answered of the same test images.

    `sizes` (j,) ascend; `wrong` holds, for each size, 0 … 1 for each redraw and test image, (r, n): how wrong the
    answer was. `groups` (n,) numbers which test images stand or fall together. The largest size is all there is.
    """

    sizes: Floats
    wrong: tuple[Floats, ...]
    groups: NDArray[np.int64]

    def part(self, sizes: NDArray[np.bool_], images: NDArray[np.bool_]) -> Points:
        """Return the points of some sizes (j,) and test images (n,)."""
        kept = np.flatnonzero(sizes)
        wrong = tuple(self.wrong[i][:, images] for i in kept)
        return Points(self.sizes[kept], wrong, self.groups[images])

    def errors(self) -> Floats:
        """Return the mean error of each size: (j,)."""
        return np.array([one.mean() for one in self.wrong])


class Band(NamedTuple):
    """A number with its 80 % interval; of gains and errors in parts of one."""

    low: float
    middle: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data, six digits."""
        return {name: round(part, 6) for name, part in self._asdict().items()}


@dataclass(frozen=True)
class Forecast:
    """Draws of the error at other numbers of training images.

    `sizes` (m,) are what was asked, `draws` (d, m) errors of a training with so many, `now` (d,) the fitted error of
    the images there are, `rises` pairs of sizes of which the larger has surely the larger error, `members` how often
    each function was drawn.
    """

    sizes: Floats
    draws: Floats
    now: Floats
    largest: float
    rises: tuple[tuple[int, int], ...]
    members: Mapping[str, int]

    def error(self, size: float) -> Band:
        """Return the error foretold at one of the sizes that were asked."""
        return _band(self.draws[:, self._place(size)])

    def gain(self, size: float) -> Band:
        """Return by how much the error is foretold to fall from the images there are to so many."""
        return _band(self.now - self.draws[:, self._place(size)])

    def _place(self, size: float) -> int:
        return int(np.flatnonzero(np.isclose(self.sizes, size))[0])

    def need(self, error: float) -> Band | None:
        """Return how many images an error takes, where the 80 % interval is narrower than × 2 and within the fan."""
        reached = self.draws <= error
        first = np.where(reached.any(1), self.sizes[reached.argmax(1)], np.inf)
        found = _band(first)
        sure = np.isfinite(found.high) and found.low >= self.largest and found.high < NARROW * found.low
        return found if sure else None


def _band(values: Floats) -> Band:
    edge = (1 - CONFIDENCE) / 2
    low, middle, high = np.quantile(values, [edge, 0.5, 1 - edge], method="nearest")
    return Band(float(low), float(middle), float(high))


def shapes(relative: Floats) -> dict[str, Floats]:
    """Return function → its shapes at sizes relative to the largest, (s, m), each falling where sizes grow.

    Mahmood et al. fix the height of arctangent and root and move them by a shift; here the height is free.
    """
    x = relative[None]

    def column(*values: float) -> Floats:
        return np.array(values)[:, None]

    wide, steep = (part.reshape(-1, 1) for part in np.meshgrid((0.3, 1.0, 3.0, 10.0, 30.0), (0.5, 1.0, 2.0)))
    reach = column(0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
    return {
        "power": x ** -column(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0),
        "logarithm": -np.log(x + column(0.0, 0.02, 0.05, 0.1, 0.3)),
        "arctan": 1 - 2 / np.pi * np.arctan(np.pi / 2 * reach * x),
        "root": 1 - wide * x / (1 + (wide * x) ** steep) ** (1 / steep),
    }


UNBOUNDED = "logarithm"
"""The function without a last error, which is therefore never below 0."""


def fit_curve(points: Points, at: Sequence[float], seed: int = 0, draws: int = DRAWS) -> Forecast | None:
    """Foretell the error at sizes beyond the points; None where fewer than three sizes are left to fit."""
    if len(points.sizes) < POINTS or len(np.unique(points.groups)) < POINTS:
        return None
    draw, largest = np.random.default_rng(seed), float(points.sizes[-1])
    spread = redraw_variance(points)
    errors = _bootstrap(points, spread, draw, draws)
    weights = 1 / (_binomial(points) + spread / [len(one) for one in points.wrong])
    wanted = np.array([largest, *at], dtype=np.float64)
    found = _fit(points.sizes, errors, weights, wanted)  # (f, d, 1 + m)
    missed = (
        errors[:, -1] - _fit(points.sizes[:-1], errors[:, :-1], weights[:-1], wanted[:1])[..., 0]
    )  # (f, d)
    chances = _chances(missed)
    member = _drawn(chances, draw, draws)
    curves = found[member, np.arange(draws)]
    beyond = _unseen(missed, chances, curves, wanted[1:] / largest) * draw.normal(size=(draws, 1))
    future = draw.normal(size=(draws, 1)) * np.sqrt(spread[-1] * largest / wanted[1:])
    names = list(shapes(wanted))
    members = {name: int((member == i).sum()) for i, name in enumerate(names)}
    told = np.clip(curves[:, 1:] + beyond + future, 0.0, 1.0)
    return Forecast(wanted[1:], told, curves[:, 0], largest, _rises(points, errors), members)


def redraw_variance(points: Points) -> Floats:
    """Return the variance of a size's error over draws of its training images: (j,), falling as 1 / n.

    Redraws from the same finite images differ too little: by 1 - n / N (sampling without replacement).
    """
    scaled, worth = 0.0, 0
    for size, wrong in zip(points.sizes, points.wrong, strict=True):
        rest = 1 - size / points.sizes[-1]
        if len(wrong) > 1 and rest > 0:
            scaled += (len(wrong) - 1) * wrong.mean(1).var(ddof=1) / rest * size
            worth += len(wrong) - 1
    found: Floats = (scaled / worth if worth else 0.0) / points.sizes
    return found


def _binomial(points: Points) -> Floats:
    """Return the variance of each size's error that the test images cause, groups as one: (j,), never 0."""
    _, counts = np.unique(points.groups, return_counts=True)
    worth = counts.sum() ** 2 / (counts**2).sum()  # Kish 1965, as in the intervals of scores
    share = (points.errors() * worth + 0.5) / (worth + 1)
    found: Floats = share * (1 - share) / worth
    return found


def _bootstrap(points: Points, spread: Floats, draw: np.random.Generator, draws: int) -> Floats:
    """Return the errors of each size with test groups drawn anew and points moved as redraws would: (d, j).

    What one more test image would say moves each size by chance, as much as under Jeffreys' prior: a dozen images that
    are all right do not say that nothing can be gained.
    """
    _, member = np.unique(points.groups, return_inverse=True)
    units = int(member.max()) + 1
    weights = draw.multinomial(units, np.full(units, 1 / units), size=draws)[:, member].astype(np.float64)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1)
    means = np.stack([one.mean(0) for one in points.wrong], axis=1)  # (n, j)
    noise = np.sqrt(spread / [len(one) for one in points.wrong])
    moved = weights @ means + noise * draw.normal(size=(draws, len(points.sizes)))
    unseen = draw.beta(0.5, 0.5, size=moved.shape)
    found: Floats = moved + (unseen - 0.5) / (units + 1)
    return found


def _fit(sizes: Floats, errors: Floats, weights: Floats, wanted: Floats) -> Floats:
    """Fit each function to the errors (d, j) of sizes (j,), and return its value at others (m,): (f, d, m)."""
    largest, share = sizes[-1], weights / weights.sum()
    known, asked = shapes(sizes / largest), shapes(wanted / largest)
    mean = errors @ share  # (d,)
    found = []
    for name, shape in known.items():
        centre = shape @ share
        away = shape - centre[:, None]  # (s, j)
        scale = (errors * share) @ away.T / (away**2 @ share)  # (d, s)
        offset = mean[:, None] - scale * centre
        missed = ((errors[:, None] - offset[..., None] - scale[..., None] * shape) ** 2) @ share
        if name != UNBOUNDED:  # a last error below 0 is none
            missed = missed + np.where(offset < 0, 1.0, 0.0)
        best = missed.argmin(1)
        rows = np.arange(len(errors))
        found.append(offset[rows, best, None] + scale[rows, best, None] * asked[name][best])
    return np.stack(found)


def _chances(missed: Floats) -> Floats:
    """Return how probably each function is drawn, by what it misses (f, d) of the largest size, against noise: (f,)."""
    noise = missed.var(1).mean() + 1e-12
    fits = np.exp(-0.5 * (missed.mean(1) ** 2) / noise)
    chances: Floats = (fits + 0.05) / (fits + 0.05).sum()
    return chances


def _drawn(chances: Floats, draw: np.random.Generator, draws: int) -> NDArray[np.int64]:
    return draw.choice(len(chances), size=draws, p=chances)


def _unseen(missed: Floats, chances: Floats, curves: Floats, relative: Floats) -> Floats:
    """Return the standard deviation of what an extrapolation misses beyond noise, at relative sizes: (m,).

    It is learned from the largest size, foretold from those below, and grows with each doubling; a share of the gain
    is always taken to be missed.
    """
    noise = missed.var(1).mean()
    seen = max(0.0, float(chances @ missed.mean(1) ** 2) - noise)
    gain = np.abs(np.median(curves[:, :1] - curves[:, 1:], axis=0))
    found: Floats = np.sqrt(seen * np.log2(relative).clip(0, None) ** 2 + (FLOOR * gain) ** 2)
    return found


def _rises(points: Points, errors: Floats) -> tuple[tuple[int, int], ...]:
    """Return the neighbouring sizes of which the larger has the larger error in almost all draws."""
    sure = (np.diff(errors, axis=1) > 0).mean(0) >= SURE
    return tuple((int(points.sizes[i]), int(points.sizes[i + 1])) for i in np.flatnonzero(sure))
