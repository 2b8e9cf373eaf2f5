"""Linear probe of segmentation: multinomial logistic regression on the frozen features of patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.data.batch import Geometry
from vitrail.data.view import points_in_original
from vitrail.layers.heads import Output
from vitrail.metrics.temperature import fit_temperature
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.probe import OTHER_HEADS, Doubt, Linear, Vectors, Whole
from vitrail.tasks.result import Result, Scope
from vitrail.tasks.segment.evaluation import SegmentEvaluation
from vitrail.tasks.segment.head import LinearMapHead
from vitrail.tasks.segment.overlap import mean_of, overlap
from vitrail.tasks.segment.report import from_details

LEARNT = 12_000
"""Largest number of patches that a regression is fitted on."""

ASKED = 4
"""Rows and columns of points per patch at which the mask is sampled."""

DRAWN = 20_000
"""Largest number of patches that a temperature is fitted on."""


class SegmentProbe:
    """Linear probe whose `truth` is the most frequent class of each patch: (n, p), or void."""

    def __init__(self, labels: Sequence[str], void: int) -> None:
        self.labels, self.void = tuple(labels), void

    def truths(self, targets: Sequence[Any]) -> Whole:
        """Return the most frequent class of each image: (n, 1)."""
        counts = [np.bincount(mask.ravel(), minlength=256)[: len(self.labels)] for mask in targets]
        largest: Whole = np.array(counts).argmax(1)[:, None]
        return largest

    def cells(self, targets: Sequence[Any], at: Sequence[Geometry], grid: tuple[int, int]) -> Whole:
        """Return the most frequent class of each patch, row by row: (n, p)."""
        return np.stack([self._cells(mask, where, grid) for mask, where in zip(targets, at, strict=True)])

    def _cells(self, mask: Any, where: Geometry, grid: tuple[int, int]) -> Whole:
        rows, cols = (
            (np.arange(n * ASKED) + 0.5) * (side / (n * ASKED))
            for n, side in zip(grid, where.size, strict=True)
        )
        points = np.stack(np.broadcast_arrays(cols[None], rows[:, None]), -1).reshape(-1, 2)
        x, y = points_in_original(where, points).T
        inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        places = np.where(inside, mask[_clipped(y, mask.shape[0]), _clipped(x, mask.shape[1])], self.void)
        several = places.reshape(grid[0], ASKED, grid[1], ASKED).swapaxes(1, 2).reshape(-1, ASKED**2)
        counts = np.apply_along_axis(np.bincount, 1, several, minlength=256)
        largest: Whole = counts.argmax(1).astype(np.int64)
        return largest

    def layer(self, head: nn.Module) -> nn.Linear | None:
        """Return the layer that receives the fitted weights; a head that reads several depths has none."""
        return head.linear if isinstance(head, LinearMapHead) else None

    def sample(self, vectors: Vectors, truth: Whole) -> tuple[Vectors, Whole]:
        """Return the patches to fit on, sampled with more patches of rare classes: (m, d) and (m,)."""
        flat, places = vectors.reshape(-1, vectors.shape[-1]), truth.reshape(-1)
        known = np.flatnonzero(places < len(self.labels))
        counts = np.bincount(places[known], minlength=len(self.labels))
        chance = 1 / np.sqrt(np.maximum(counts, 1))[places[known]]
        rng = np.random.default_rng(0)
        size = min(LEARNT, len(known))
        drawn = np.sort(rng.choice(known, size, replace=False, p=chance / chance.sum()))
        return flat[drawn].astype(np.float32), places[drawn]

    def regressions(self, scaled: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
        """Yield one multinomial regression per regularisation strength."""
        return ClassProbe(self.labels).regressions(scaled, truth, strengths)

    def strata(self, truth: Whole) -> Whole:
        """Return one stratum for all images, because an image has many classes."""
        return np.zeros(len(truth), np.int64)

    def worth(self, logits: Vectors, truth: Whole) -> float:
        """Return mean IoU over patches."""
        known = truth < len(self.labels)
        k = len(self.labels)
        pairs = truth[known] * k + logits.argmax(-1)[known]
        table = np.bincount(pairs, minlength=k * k).reshape(k, k)
        return float(mean_of(overlap(table), table.sum(1) > 0))

    def share(self, logits: Vectors, truth: Whole) -> float:
        """Return mean IoU over patches."""
        return self.worth(logits, truth)

    def wrong(self, logits: Vectors, truth: Whole) -> NDArray[np.float64]:
        """Return the share of each image's patches of a class that are taken for another: (n,)."""
        known = truth < len(self.labels)
        missed = ((logits.argmax(-1) != truth) & known).sum(1)
        found: NDArray[np.float64] = missed / np.maximum(known.sum(1), 1)
        return found

    def output(self, logits: Vectors, grid: tuple[int, int]) -> Output:
        """Return the logits of patches as a map: (n, p, k) -> (n, k, row, col)."""
        maps = torch.from_numpy(logits.reshape(len(logits), *grid, -1))
        return {"map": maps.permute(0, 3, 1, 2)}

    def calibrate(self, logits: Vectors, truth: Whole) -> Mapping[str, Any]:
        """Return the temperature fitted on patches."""
        known = np.flatnonzero(truth.reshape(-1) < len(self.labels))
        known = known[:: max(1, len(known) // DRAWN)]
        flat = logits.reshape(-1, logits.shape[-1])[known].astype(np.float64)
        return {"temperature": fit_temperature(flat, truth.reshape(-1)[known])}

    def result(self, evaluation: SegmentEvaluation, scope: Scope) -> Result:
        """Return the result of cross-validation."""
        return evaluation.result(scope, OTHER_HEADS)

    def reopen(self, report: Mapping[str, Any]) -> Result:
        """Return the result that the report.json of a draft contains."""
        return from_details(report, OTHER_HEADS)

    def doubts(self, evaluation: SegmentEvaluation) -> list[Doubt] | None:
        """Return None: a mask is rarely wrong as a whole, so label errors are not searched."""
        return None


def _clipped(at: Any, length: int) -> Whole:
    indices: Whole = np.clip(at.astype(np.int64), 0, length - 1)
    return indices
