"""Evaluation of segmentation: IoU from one confusion matrix of pixels over the whole set, edges, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import Row, group_key
from vitrail.data.view import strips_in_original
from vitrail.metrics.calibration import BINS
from vitrail.metrics.intervals import Interval, bootstrap, resampled, wilson
from vitrail.metrics.temperature import temperature
from vitrail.tasks.result import (
    VALIDATION,
    Cell,
    Column,
    Gathered,
    Limits,
    Number,
    Overlays,
    Reliability,
    Result,
    Scope,
    Section,
    Shot,
    Table,
    TableSection,
)
from vitrail.tasks.segment import surfaces

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

STRIP = 1 << 22
"""Values of logit maps in memory at a time, at the size of the original: 16 MB, plus their softmax."""

DRAWN = 96
"""Pixels of each image whose logits are kept to fit the temperature."""

SHOWN = 6
"""Images of each kind on a page: the worst and the best."""

THIN = 0.8
"""A class is thin if at least this share of its area lies in the band inside its edges."""


def overlap(table: Array | Counts) -> Array:
    """Return IoU by class from confusion matrices of pixels with truth as rows: (…, k).

    The matrices are (…, k, k), or (…, k, k + 1) with pixels without prediction in the last column. A class that occurs
    neither in the truth nor in the prediction is NaN.
    """
    predicted = table[..., : table.shape[-2]]
    correct = np.diagonal(predicted, axis1=-2, axis2=-1).astype(np.float64)
    union = table.sum(-1) + predicted.sum(-2) - correct
    return _ratio(correct, union)


def _ratio(part: Any, whole: Any) -> Array:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: Array = np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0
    )
    return ratio


def mean_of(values: Array, present: NDArray[np.bool_]) -> Array:
    """Return the mean over the present classes, where NaN counts as 0: (…, k) -> (…)."""
    total = np.where(present, np.nan_to_num(values), 0.0).sum(-1)
    mean: Array = total / np.maximum(present.sum(-1), 1)
    return mean


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
        return {"temperature": temperature(logits, true)}

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
            "accuracy": np.nan_to_num(_ratio(right, tables.sum((1, 2)))),
            "loss": losses[:, 0] / np.maximum(losses[:, 1], 1),
        }

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; each pixel counts as often as its image."""
        table = np.tensordot(counts, self.kept["table"], 1)
        near = np.tensordot(counts, self.kept["edges"], 1)
        present = table.sum(1) > 0
        iou = overlap(table)
        f1, band = _edge_scores(near)
        own = np.diagonal(table[:, :-1])
        thin = self.thin() & present
        return {
            "miou": float(mean_of(iou, present)),
            "dice": float(mean_of(2 * iou / (1 + iou), present)),
            "accuracy": float(_ratio(own.sum(), table.sum())),
            "boundary_f1": float(mean_of(f1, present)),
            "boundary_iou": float(mean_of(band, present)),
            "thin_recall": float(mean_of(_ratio(own, table.sum(1)), thin)) if thin.any() else float("nan"),
            **dict(zip(("hd95", "surface_dice"), self._distances(counts), strict=True)),
        }

    def _distances(self, counts: Array) -> tuple[float, float]:
        """Return HD95 in mm and surface Dice of a bootstrap sample: means over regions with an edge in both masks."""
        values = self.kept["surface"]
        weights = np.isfinite(values) * counts[:, None, None]
        distance, dice = _ratio((np.nan_to_num(values) * weights).sum((0, 1)), weights.sum((0, 1)))
        return float(distance), float(dice)

    def thin(self) -> NDArray[np.bool_]:
        """Return which classes are thin, with most of their area at an edge: (k,); none if all classes are thin."""
        near = self.kept["edges"].sum(0)
        share = _ratio(near[:, surfaces.COLUMNS.index("band")], near[:, surfaces.COLUMNS.index("area")])
        thin: NDArray[np.bool_] = np.nan_to_num(share) >= THIN
        return thin & (not thin[self.present()].all())

    def headline(self) -> Number:
        """Return mean IoU with its interval."""
        value = self.scores()["miou"]
        draws = resampled([group_key(row) for row in self.rows])
        score = bootstrap(value, self._drawn_overlap(draws)[0], len(self.rows))
        return Number.of(score.to_dict(), name="mIoU", fact="mean overlap of the classes (IoU)")

    def _drawn_overlap(self, draws: Array) -> tuple[Array, Array]:
        """Return mean IoU and the IoU of each class in bootstrap samples: (draws,) and (draws, k)."""
        flat = self.kept["table"].reshape(len(self.rows), -1).astype(np.float64)
        tables = (draws @ flat).reshape(len(draws), len(self.labels), -1)
        iou = overlap(tables)
        return mean_of(iou, tables.sum(2) > 0), iou

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; `fitted_on` names the data of the temperature."""
        return _Report(self, scope).result(fitted_on)


def _edge_scores(near: Any) -> tuple[Array, Array]:
    """Return boundary F1 and boundary IoU of each class from the counts of `surfaces.edges`: (k,) each."""
    precision, recall = _ratio(near[:, 0], near[:, 1]), _ratio(near[:, 2], near[:, 3])
    f1 = _ratio(2 * np.nan_to_num(precision) * np.nan_to_num(recall), np.nan_to_num(precision + recall))
    return np.nan_to_num(f1), np.nan_to_num(_ratio(near[:, 4], near[:, 5]))


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


def _error(bins: Array) -> float:
    """Return the calibration error of bins filled by `_count`."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(1.0, float(bins[:, 0].sum())))


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


_SHARES = "The share is of the pixels of the class."

FACTS = {
    "miou": ("mIoU", "mean overlap of the classes (IoU)"),
    "dice": ("Dice", "mean Dice of the classes"),
    "accuracy": ("pixels right", "pixels right"),
    "boundary_f1": ("boundary F1", "boundary F1, edges within {0} px"),
    "boundary_iou": ("boundary IoU", "boundary IoU, a band of {1} px"),
    "thin_recall": ("recall of thin classes", "recall of thin classes"),
    "hd95": ("HD95", "95 % Hausdorff distance"),
    "surface_dice": ("surface Dice", "surface Dice within {2} mm"),
}
"""Score → its name in tables and its text on pages."""

COLUMNS = (
    Column("class"), Column("IoU", spread=True), Column("Dice", right=True), Column("recall", right=True),
    Column("precision", right=True), Column("boundary F1", right=True), Column("of the pixels", right=True),
)  # fmt: skip
"""The columns of the table of classes."""


def from_details(report: Mapping[str, Any], fitted_on: str) -> Result:
    """Return the result that report.json contains: everything except the images."""
    test = report["test"]
    edge, band = test["widths"]
    numbers = {
        name: Number.of(test[name], called, fact.format(edge, band, test.get("reach")))
        for name, (called, fact) in FACTS.items()
        if name in test
    }
    rows = [
        (name, Number.of(cells["IoU"]), *(Number(value) for key, value in cells.items() if key != "IoU"))
        for name, cells in test["per_class"].items()
    ]
    table = Table(COLUMNS, tuple(rows))
    calibration = dict(report["calibration"])
    # Older reports computed `ece_before` on other pixels than `ece_after`, and stored 0 as noise.
    if calibration.pop("ece_noise", None) is not None:
        calibration.pop("ece_before")
    sections = (
        TableSection("Class by class", table),
        Reliability("Calibration", calibration, fitted_on),
    )
    details = {"test": test, "calibration": calibration}
    return Result("miou", numbers, report["verdict"], (table,), sections, details)


class _Report:
    """The scores of an evaluation with their intervals, as a sentence, tables and sections."""

    def __init__(self, evaluation: SegmentEvaluation, scope: Scope) -> None:
        self.evaluation, self.scope, self.labels = evaluation, scope, evaluation.labels
        self.count = len(evaluation.rows)
        self.draws = resampled([group_key(row) for row in evaluation.rows])
        self.matrix, self.present = evaluation.matrix(), evaluation.present()
        self.iou = overlap(self.matrix)
        self.drawn_mean, self.drawn_iou = evaluation._drawn_overlap(self.draws)
        self.near = evaluation.kept["edges"].sum(0)

    def result(self, fitted_on: str) -> Result:
        numbers = self._numbers()
        table = self._per_class()
        calibration = self._calibration()
        sections: list[Section] = [
            TableSection("Class by class", table, self._note()),
            TableSection("Most frequent mistakes", self._mistaken(), _SHARES, card="Most frequent mistakes"),
            Reliability("Calibration", calibration, fitted_on),
            *self._galleries(),
            Limits("Limits", self._limits()),
        ]
        details = {"test": self._details(numbers), "calibration": calibration}
        return Result("miou", numbers, self._verdict(numbers["miou"]), (table,), sections, details)

    def _numbers(self) -> dict[str, Number]:
        scores = self.evaluation.resample(np.ones(self.count))
        drawn = [self.evaluation.resample(counts) for counts in self.draws[:: max(1, len(self.draws) // 200)]]
        edge, band = self._widths()
        numbers = {}
        for name, (called, fact) in FACTS.items():
            if not np.isfinite(scores[name]):
                continue
            values = self.drawn_mean if name == "miou" else np.repeat([one[name] for one in drawn], 5)
            score = bootstrap(scores[name], np.asarray(values), self.count).to_dict()
            number = Number.of(score, called, fact.format(edge, band, self._reach()))
            numbers[name] = number._replace(unit="mm", better="lower") if name == "hd95" else number
        return numbers

    def _reach(self) -> str:
        """Return the tolerance of surface Dice in mm, if the pixel size is known."""
        known = self.evaluation.kept["reach"]
        known = known[np.isfinite(known)]
        low, high = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
        return f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}"

    def _widths(self) -> tuple[str, str]:
        widths = self.evaluation.kept["widths"]
        low, high = widths.min(0), widths.max(0)
        edge, band = (f"{a}" if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True))
        return edge, band

    def _per_class(self) -> Table:
        own = np.diagonal(self.matrix[:, :-1])
        recall, precision = _ratio(own, self.matrix.sum(1)), _ratio(own, self.matrix[:, :-1].sum(0))
        f1, share = _edge_scores(self.near)[0], _ratio(self.matrix.sum(1), self.matrix.sum())
        rows: list[tuple[Cell, ...]] = []
        for i, label in enumerate(self.labels):
            if not self.present[i]:
                continue
            score = Number.of(bootstrap(float(self.iou[i]), self.drawn_iou[:, i], self.count).to_dict())
            other = (2 * self.iou[i] / (1 + self.iou[i]), recall[i], precision[i], f1[i], share[i])
            cells = tuple(Number(float(one) if np.isfinite(one) else None) for one in other)
            rows.append((label, score, *cells))
        return Table(COLUMNS, tuple(rows))

    def _mistaken(self) -> Table:
        """Return for each class its most frequent wrong prediction."""
        rows = []
        for i, label in enumerate(self.labels):
            if not self.present[i]:
                continue
            wrong = self.matrix[i, :-1].astype(np.float64)
            wrong[i] = 0
            place = int(wrong.argmax())
            taken = self.labels[place] if wrong[place] else "–"
            rows.append((label, taken, Number(float(wrong[place] / self.matrix[i].sum()))))
        return Table((Column("class"), Column("mostly taken for"), Column("share", right=True)), tuple(rows))

    def _note(self) -> str:
        absent = [label for label, there in zip(self.labels, self.present, strict=True) if not there]
        left = f"No true mask contains {shorten(absent)}: left out of every mean. " if absent else ""
        edge, _ = self._widths()
        thin = [
            label
            for label, flag in zip(self.labels, self.evaluation.thin() & self.present, strict=True)
            if flag
        ]
        named = f" Thin classes: {', '.join(thin)}." if thin else ""
        return f"{left}Edges match within {edge} px. Intervals: bootstrap over groups of images.{named}"

    def _calibration(self) -> dict[str, Any]:
        """Return the calibration of the pixel probabilities, as report.json contains it.

        Pixels of an image are not independent, so no error expected by chance is reported.
        """
        bins = self.evaluation.kept["bins"].sum(0)
        counts = (self.evaluation.kept["bins"][..., 0] > 0).sum(0)
        rows = []
        for (pixels, sure, right), images in zip(bins, counts, strict=True):
            if pixels:
                share = wilson(right / pixels * images, float(images))
                rows.append({"sure": round(sure / pixels, 4), "right": _plain(share), "answers": int(pixels)})
        return {
            "ece_before": round(_error(self.evaluation.kept["plain"].sum(0)), 6),
            "ece_after": round(_error(bins), 6),
            "temperature": self.evaluation.temperature,
            "answers": int(bins[:, 0].sum()),
            "bins": rows,
        }

    def _galleries(self) -> list[Overlays]:
        each = self.evaluation.per_image()["miou"]
        order = np.argsort(each, kind="stable").tolist()
        shots = [
            Shot(self.evaluation.rows[i].id, "", "", caption=f"mIoU {100 * each[i]:.0f} %") for i in order
        ]
        worst, others = tuple(shots[:SHOWN]), shots[SHOWN:]
        hint = "Truth, answer, and their differences in red; void pixels have no colour."
        best = tuple(others[::-1][:SHOWN])
        if not best:
            return [Overlays("The images, the worst first", hint, worst)]
        return [Overlays("The worst images", hint, worst), Overlays("The best images", hint, best)]

    def _limits(self) -> tuple[str, ...]:
        weak = [
            f"{label} ({self.iou[i]:.0%})"
            for i, label in enumerate(self.labels)
            if self.present[i] and self.iou[i] < 0.3
        ]
        return (f"Overlap below 30 %: {', '.join(weak)}.",) if weak else ()

    def _verdict(self, number: Number) -> str:
        span = f", {number.span()}" if number.low is not None else ""
        there = [(float(self.iou[i]), label) for i, label in enumerate(self.labels) if self.present[i]]
        weak = min(there)
        over = count(len(there), "class", "classes")
        return (
            f"mIoU {number.text()}{span}, over {over}, on {self.count:,} {self.scope.called}; weakest: "
            f"{weak[1]} {weak[0]:.0%}."
        )

    def _details(self, numbers: Mapping[str, Number]) -> dict[str, Any]:
        table = self._per_class()
        per_class = {str(row[0]): _numbered(table.columns, row) for row in table.rows}
        absent = [label for label, there in zip(self.labels, self.present, strict=True) if not there]
        return {
            "pictures": self.count,
            **{name: number.to_dict() for name, number in numbers.items()},
            "per_class": per_class,
            "absent": absent,
            "widths": list(self._widths()),
            **({"reach": self._reach()} if "hd95" in numbers else {}),
            "confusion": {"labels": list(self.labels), "pixels": self.matrix.tolist()},
        }


def _numbered(columns: Sequence[Column], row: Sequence[Any]) -> dict[str, Any]:
    return {
        column.name: cell.to_dict() if column.spread else cell.value
        for column, cell in zip(columns, row, strict=True)
        if isinstance(cell, Number)
    }


def _plain(interval: Interval) -> dict[str, float]:
    return interval.to_dict()
