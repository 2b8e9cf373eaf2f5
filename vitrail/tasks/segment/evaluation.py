"""Evaluation of segmentation: IoU from one confusion matrix of pixels over the whole set, edges, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row, group_key
from vitrail.data.view import strips_in_original
from vitrail.metrics.calibration import BINS
from vitrail.metrics.intervals import bootstrap, resampled, units_of
from vitrail.metrics.kappa import kappa_of_table
from vitrail.metrics.temperature import fit_temperature
from vitrail.tasks.result import (
    VALIDATION,
    Gathered,
    Number,
    Result,
    Scope,
)
from vitrail.tasks.segment import surfaces
from vitrail.tasks.segment.overlap import Array, Counts, edge_scores, mean_of, overlap, ratio
from vitrail.tasks.segment.report import report_of

STRIP = 1 << 22
"""Values of logit maps in memory at a time, at the size of the original: 16 MB, plus their softmax."""

DRAWN = 96
"""Pixels of each image whose logits are kept to fit the temperature."""


THIN = 0.8
"""A class is thin if at least this share of its area lies in the band inside its edges."""


class SegmentEvaluation:
    """Evaluation in the pixels of the originals, without void pixels. Classes that no truth shows are left out."""

    main, unit = "miou", "%"

    def __init__(
        self,
        labels: Sequence[str],
        void: int = 255,
        temperature: float = 1.0,
        spacing: tuple[float, float] | None = None,
    ) -> None:
        self.labels, self.void, self.temperature, self.spacing = tuple(labels), void, temperature, spacing
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[NDArray[np.uint8]],
        at: Sequence[Geometry],
    ) -> None:
        """Add logit maps (b, k, row, col) and the true masks of the originals."""
        counts = [
            self._one(maps, truth, geometry)
            for maps, truth, geometry in zip(output["map"], truths, at, strict=True)
        ]
        self.kept.add(rows, {name: np.stack([one[name] for one in counts]) for name in counts[0]})

    def _one(self, maps: Tensor, truth: NDArray[np.uint8], geometry: Geometry) -> dict[str, NDArray[Any]]:
        """Return the counts of one image."""
        k, image = len(self.labels), _Image(len(self.labels), self.void, self.temperature)
        answer = np.full(truth.shape, self.void, np.uint8)
        for rows, strip in strips_in_original(geometry, maps.float(), STRIP):
            answer[rows] = image.add(strip, truth[rows])
        drawn, true = _drawn(geometry, maps, truth, self.void)
        answer = np.where(truth == self.void, self.void, answer).astype(np.uint8)
        widths = surfaces.Widths.of(geometry.original)
        parts: dict[str, NDArray[Any]] = {
            "table": image.table, "bins": image.bins, "plain": image.plain,
            "loss": np.array([image.loss, image.pixels]),
            "edges": surfaces.edges(answer, truth, k, widths), "drawn": drawn, "true": true,
            "widths": np.array(widths), "surface": np.full((k, 2), np.nan), "reach": np.array([np.nan]),
        }  # fmt: skip
        if spacing := self.spacing or geometry.spacing:
            parts["surface"] = np.array(
                [surfaces.surface(answer == i, truth == i, spacing) for i in range(k)], np.float64
            )
            parts["reach"] = np.array([surfaces.MATCHED * max(spacing)])
        return parts

    def merge(self, other: SegmentEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    def matrix(self) -> Counts:
        """Return the pixels of all images: (k, k + 1), rows truth, columns prediction, the last one no prediction."""
        k = len(self.labels)
        if not len(self.kept):
            return np.zeros((k, k + 1), np.int64)
        matrix: Counts = self.kept["table"].sum(0).astype(np.int64)
        return matrix

    def present(self) -> NDArray[np.bool_]:
        """Return which classes occur in any true mask: (k,)."""
        present: NDArray[np.bool_] = self.matrix().sum(1) > 0
        return present

    def scores(self) -> dict[str, float]:
        """Return mean IoU over the present classes, pixel accuracy, the mean loss per pixel and the image count."""
        if not len(self.kept):
            return {"miou": 0.0, "accuracy": 0.0, "loss": float("nan"), "pictures": 0}
        scores = self.resample(np.ones(len(self.kept)))
        loss, pixels = self.kept["loss"].sum(0)
        return {
            "miou": scores["miou"],
            "accuracy": scores["accuracy"],
            "loss": float(loss / max(1.0, pixels)),
            "pictures": len(self.kept),
        }

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature that calibrates the probabilities of pixels."""
        logits, true = self._pixels()
        return {"temperature": fit_temperature(logits, true)}

    def _pixels(self) -> tuple[Array, Counts]:
        """Return the logits and classes of the sampled pixels of all images."""
        true = self.kept["true"].reshape(-1).astype(np.int64)
        logits = self.kept["drawn"].reshape(-1, len(self.labels)).astype(np.float64)
        return logits[true != self.void], true[true != self.void]

    def per_image(self) -> Mapping[str, Array]:
        """Return mean IoU, accuracy and loss of each image."""
        tables, losses = self.kept["table"], self.kept["loss"]
        right = np.diagonal(tables[..., :-1], axis1=1, axis2=2).sum(1)
        return {
            "miou": mean_of(overlap(tables), tables.sum(2) > 0),
            "accuracy": np.nan_to_num(ratio(right, tables.sum((1, 2)))),
            "loss": losses[:, 0] / np.maximum(losses[:, 1], 1),
        }

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; each pixel counts as often as its image."""
        table = np.tensordot(counts, self.kept["table"], 1)
        near = np.tensordot(counts, self.kept["edges"], 1)
        present = table.sum(1) > 0
        iou = overlap(table)
        f1, band = edge_scores(near)
        own = np.diagonal(table[:, :-1])
        thin = self.thin() & present
        return {
            "miou": float(mean_of(iou, present)),
            "dice": float(mean_of(2 * iou / (1 + iou), present)),
            "accuracy": float(ratio(own.sum(), table.sum())),
            "balanced_accuracy": float(mean_of(ratio(own, table.sum(1)), present)),
            "kappa": float(kappa_of_table(table)),
            "boundary_f1": float(mean_of(f1, present)),
            "boundary_iou": float(mean_of(band, present)),
            "thin_recall": float(mean_of(ratio(own, table.sum(1)), thin)) if thin.any() else float("nan"),
            **dict(zip(("hd95", "surface_dice"), self._distances(counts), strict=True)),
        }

    def _distances(self, counts: Array) -> tuple[float, float]:
        """Return HD95 in mm and surface Dice of a bootstrap sample: means over regions with an edge in both masks."""
        values = self.kept["surface"]
        weights = np.isfinite(values) * counts[:, None, None]
        distance, dice = ratio((np.nan_to_num(values) * weights).sum((0, 1)), weights.sum((0, 1)))
        return float(distance), float(dice)

    def thin(self) -> NDArray[np.bool_]:
        """Return which classes are thin, with most of their area at an edge: (k,); none if all classes are thin."""
        near = self.kept["edges"].sum(0)
        share = ratio(near[:, surfaces.COLUMNS.index("band")], near[:, surfaces.COLUMNS.index("area")])
        thin: NDArray[np.bool_] = np.nan_to_num(share) >= THIN
        return thin & (not thin[self.present()].all())

    def headline(self) -> Number:
        """Return mean IoU with its interval."""
        value = self.scores()["miou"]
        groups = [group_key(row) for row in self.rows]
        drawn = self.drawn_overlap(resampled(groups))[0]
        score = bootstrap(value, drawn, len(self.rows), units_of(groups).groups)
        return Number.of(score.to_dict(), name="mIoU", fact="mean overlap of the classes (IoU)")

    def drawn_overlap(self, draws: Array) -> tuple[Array, Array]:
        """Return mean IoU and the IoU of each class in bootstrap samples: (draws,) and (draws, k)."""
        flat = self.kept["table"].reshape(len(self.rows), -1).astype(np.float64)
        tables = (draws @ flat).reshape(len(draws), len(self.labels), -1)
        iou = overlap(tables)
        return mean_of(iou, tables.sum(2) > 0), iou

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; `fitted_on` names the data of the temperature."""
        return report_of(self, scope, fitted_on)


class _Image:
    """Counts of one image, added strip by strip."""

    def __init__(self, classes: int, void: int, temperature: float) -> None:
        self.classes, self.void, self.temperature = classes, void, temperature
        self.table = np.zeros((classes, classes + 1), np.int64)
        self.bins, self.plain = np.zeros((BINS, 3), np.float64), np.zeros((BINS, 3), np.float64)
        self.loss, self.pixels = 0.0, 0

    def add(self, strip: Tensor, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Count a strip of logits (k, rows, width) at the size of the original, and return its prediction."""
        confidence, place = (strip / self.temperature).softmax(0).max(0)
        answer = np.where(confidence.isnan().numpy(), self.void, place.numpy()).astype(np.uint8)
        counts = truth != self.void
        column = np.where(answer == self.void, self.classes, answer).astype(np.int64)
        pairs = truth[counts].astype(np.int64) * (self.classes + 1) + column[counts]
        self.table += np.bincount(pairs, minlength=self.table.size).reshape(self.table.shape)
        known = counts & (answer != self.void)
        at = torch.from_numpy(known)
        true = torch.from_numpy(truth[known].astype(np.int64))
        logits = strip[:, at]
        own = logits.gather(0, true[None])[0]
        whole = logits.logsumexp(0)
        self.loss += float((whole - own).double().sum())
        self.pixels += len(true)
        correct = (answer[known] == truth[known]).astype(np.float64)
        plain = confidence[at] if self.temperature == 1 else (logits.amax(0) - whole).exp()
        _count(self.bins, confidence[at], correct)
        _count(self.plain, plain, correct)
        return answer


def _count(bins: Array, confidence: Tensor, correct: Array) -> None:
    """Add predictions to probability bins (BINS, 3): their number, their summed confidence, the number correct."""
    probability = confidence.double().numpy()
    place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    for column, weight in enumerate((np.ones_like(correct), probability, correct)):
        bins[:, column] += np.bincount(place, weights=weight, minlength=BINS)


def _drawn(
    geometry: Geometry, maps: Tensor, truth: NDArray[np.uint8], void: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return logits (DRAWN, k) and classes (DRAWN,) of pixels sampled from an image with a fixed seed."""
    from vitrail.data.view import points_in_input

    rng = np.random.default_rng(0)
    rows, cols = (rng.integers(0, side, DRAWN) for side in truth.shape)
    share = points_in_input(geometry, np.stack([cols + 0.5, rows + 0.5], 1)) / geometry.size[::-1]
    inside = ((share >= 0) & (share < 1)).all(1)
    cells = np.clip(share * maps.shape[:0:-1], 0, np.array(maps.shape[:0:-1]) - 1).astype(np.int64)
    logits = maps.float().numpy()[:, cells[:, 1], cells[:, 0]].T
    return np.ascontiguousarray(logits), np.where(inside, truth[rows, cols], void).astype(np.uint8)
