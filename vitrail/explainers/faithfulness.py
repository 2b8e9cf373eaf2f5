"""Test heat maps: deletion and insertion against random order, and comparison with shuffled weights.

Deletion and insertion: Petsiuk, Das and Saenko 2018 (RISE), arXiv:1806.07421, §4.2. Shuffled weights: after Adebayo
et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from vitrail.explainers.grids import Grid, pooled
from vitrail.explainers.masked_images import MaskedImages
from vitrail.explainers.occlusion import cell_grid, mean_colour
from vitrail.explainers.target import Subject

RANDOM = 8
"""Number of random orders to compare with."""

STEPS = 12
"""Number of steps in which the image is deleted or inserted; with ten, gains on a grid of 8 × 8 differ by a tenth."""

SHUFFLES = 2
"""Number of networks with shuffled weights to compare with."""

LEAST = 0.005
"""Gain, in points of the score, below which it is displayed as 0.00 and counts as zero."""

ALIKE = 0.5
"""Rank correlation with shuffled weights from which a map counts as the same."""

NOTHING = "The test is not conclusive: the score hardly depends on any part of the image."

Curve = NDArray[np.float64]


class Gain(NamedTuple):
    """A mean with its 95 % interval (Student's t), in points of the score."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval is above 0 and the mean is not displayed as 0.00."""
        return self.low > 0 and self.mean >= LEAST

    def __str__(self) -> str:
        return f"{self.mean:+z.2f} ({self.low:+z.2f} … {self.high:+z.2f})"


@dataclass(frozen=True)
class Faithfulness:
    """Result of the tests of an explanation.

    `deletion`: how much lower the score is, on average over the steps, if the brightest cells are deleted first instead
    of in random order. `insertion`: how much higher it is if they are inserted first. Above 0 is better than random
    order. `alike`: rank correlation with the map of networks with shuffled weights; it is low for a faithful map.
    """

    deletion: Gain
    insertion: Gain
    alike: float

    @property
    def nothing(self) -> bool:
        """Whether both gains are displayed as 0.00: no order of the cells is better than another."""
        return max(abs(self.deletion.mean), abs(self.insertion.mean)) < LEAST

    @property
    def holds(self) -> bool:
        """Whether both intervals are above 0 and shuffled weights give a different map."""
        return self.deletion.sure and self.insertion.sure and self.alike < ALIKE

    @property
    def words(self) -> str:
        """The result in one sentence."""
        wrong = [
            name
            for name, gain in (("deletion", self.deletion), ("insertion", self.insertion))
            if not gain.sure
        ]
        if self.nothing:
            return NOTHING
        if self.alike >= ALIKE:
            return "Do not trust it: shuffled weights give nearly the same heat map."
        if wrong:
            return f"Doubtful: not significantly better than random order by {' and '.join(wrong)}."
        return "Faithful: better than random order in both tests, and a different heat map with shuffled weights."

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "deletion": {k: round(v, 4) for k, v in self.deletion._asdict().items()},
            "insertion": {k: round(v, 4) for k, v in self.insertion._asdict().items()},
            "alike_with_shuffled_weights": round(self.alike, 4),
            "holds": self.holds,
        }


def mean_gain(values: Sequence[float]) -> Gain:
    """Return the mean of values with its 95 % interval; for a single value the interval is infinite."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Gain(mean, -np.inf, np.inf)
    reach = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / len(values) ** 0.5)
    return Gain(mean, mean - reach, mean + reach)


class Baseline:
    """Scores of random orders for one image and target, computed once and shared by all methods."""

    def __init__(self, subject: Subject, image: Tensor, seed: int = 0) -> None:
        self.subject, self.image = subject, image
        self.cells = cell_grid(subject.spec, image)
        draw = np.random.default_rng(seed)
        orders = [draw.permutation(prod(self.cells)) for _ in range(RANDOM)]
        self.fills = torch.stack([mean_colour(image), blurred(image)])
        self.random = self._areas(orders)

    def gains(self, grid: NDArray[np.floating]) -> tuple[Gain, Gain]:
        """Return the gain of a map's order over random orders, by deletion and by insertion."""
        order = np.argsort(-self.on_cells(grid).ravel(), kind="stable")
        ((deleted, inserted),) = self._areas([order])
        return (
            mean_gain([random[0] - deleted for random in self.random]),
            mean_gain([inserted - random[1] for random in self.random]),
        )

    def on_cells(self, grid: NDArray[np.floating]) -> Curve:
        """Resample a map to the common cells: (row, col) or (t, row, col) of any size -> cells."""
        cells: Curve = pooled(torch.as_tensor(grid).float()[None], self.cells)[0].double().numpy()
        return cells

    def _areas(self, orders: Sequence[NDArray[np.integer]]) -> list[tuple[float, float]]:
        """Return the mean score over the steps, when cells are deleted and when they are inserted, for each order."""
        taken = torch.stack([_portions(order, self.cells) for order in orders])  # (orders, steps, *cells)
        if not taken.shape[1]:  # a single cell has no order
            return [(0.0, 0.0)] * len(orders)
        masks = torch.stack([taken, 1 - taken], 1)
        chosen = torch.arange(2).repeat_interleave(taken.shape[1]).repeat(len(orders))
        images = MaskedImages(self.image, masks.flatten(0, 2), self.fills, chosen, "deletion and insertion")
        scores = self.subject.masked_scores(images).view(len(orders), 2, -1)
        return [(float(deleted), float(inserted)) for deleted, inserted in scores.mean(-1)]


def _portions(order: NDArray[np.integer], cells: Grid) -> Tensor:
    """Return which cells are selected after each step: (steps, *cells) of 0 and 1."""
    ends = np.unique(np.linspace(0, len(order), min(STEPS, len(order)) + 1).round().astype(int))[1:-1]
    taken = torch.zeros(len(ends), len(order))
    for turn, end in enumerate(ends):
        taken[turn, torch.as_tensor(order[:end].copy())] = 1
    return taken.view(-1, *cells)


def blurred(image: Tensor) -> Tensor:
    """Return a strongly blurred image, or a clip of blurred frames: (…, channels, height, width)."""
    height, width = image.shape[-2:]
    frames = image.reshape(-1, *image.shape[-3:])
    coarse = F.interpolate(
        frames, (max(1, height // 32), max(1, width // 32)), mode="bilinear", antialias=True
    )
    return F.interpolate(coarse, (height, width), mode="bicubic").view_as(image)


def alike(maps: Sequence[NDArray[np.floating]], one: NDArray[np.floating]) -> float:
    """Return the mean Spearman correlation of a map with others; 0 for a constant map."""
    found = [_spearman(other, one) for other in maps]
    return float(np.mean(found))


def _spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    ranks = [_ranks(np.nan_to_num(x).ravel()) for x in (a, b)]
    if any(np.ptp(x) == 0 for x in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.floating]) -> Curve:
    """Return the rank of each value from 1; equal values have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Curve = np.cumsum(counts) - (counts - 1) / 2
    return means[places]


def tested(
    explainer: Callable[[Subject, Tensor], Tensor],
    grid: NDArray[np.floating],
    baseline: Baseline,
    shuffled: Sequence[Subject],
) -> Faithfulness:
    """Test a map; `shuffled` are the same target in networks with shuffled weights.

    `explainer` makes their maps; it may be a cheaper version of the one that made the map, as only ranks are compared.
    """
    deletion, insertion = baseline.gains(grid)
    others = [explainer(one, baseline.image[None])[0].float().numpy() for one in shuffled]
    same = alike([baseline.on_cells(other) for other in others], baseline.on_cells(grid))
    return Faithfulness(deletion, insertion, same)
