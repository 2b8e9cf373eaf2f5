"""What a report says of a segmentation: numbers with intervals, tables, sections, a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.data.labels import count, shorten
from vitrail.data.manifest import group_key
from vitrail.metrics.intervals import Interval, bootstrap, resampled, units_of, wilson
from vitrail.tasks.resampling import resampling_of, told, warnings
from vitrail.tasks.result import (
    Cell,
    Column,
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
from vitrail.tasks.segment.overlap import Array, edge_scores, overlap, ratio

if TYPE_CHECKING:
    from vitrail.tasks.segment.evaluation import SegmentEvaluation


SHOWN = 6
"""Images of each kind on a page: the worst and the best."""


_SHARES = "The share is of the pixels of the class."


FACTS = {
    "miou": ("mIoU", "mean overlap of the classes (IoU)"),
    "dice": ("Dice", "mean Dice of the classes"),
    "accuracy": ("pixels right", "pixels right"),
    "balanced_accuracy": ("mean over classes", ""),
    "kappa": ("kappa", ""),
    "boundary_f1": ("boundary F1", "boundary F1, edges within {0} px"),
    "boundary_iou": ("boundary IoU", "boundary IoU, a band of {1} px"),
    "thin_recall": ("recall of thin classes", "recall of thin classes"),
    "hd95": ("HD95", "95 % Hausdorff distance"),
    "surface_dice": ("surface Dice", "surface Dice within {2} mm"),
}
"""Score → its name in tables and its text on pages."""


_UNITS: Mapping[str, dict[str, Any]] = {"hd95": {"unit": "mm", "better": "lower"}, "kappa": {"unit": ""}}
"""Score → its unit and direction, where it is no share."""


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


def report_of(evaluation: SegmentEvaluation, scope: Scope, fitted_on: str) -> Result:
    """Return what an evaluation found, with intervals; `fitted_on` names the images that fitted the temperature."""
    return _Report(evaluation, scope).result(fitted_on)


class _Report:
    """The scores of an evaluation with their intervals, as a sentence, tables and sections."""

    def __init__(self, evaluation: SegmentEvaluation, scope: Scope) -> None:
        self.evaluation, self.scope, self.labels = evaluation, scope, evaluation.labels
        self.count = len(evaluation.rows)
        groups = [group_key(row) for row in evaluation.rows]
        self.draws, self.groups = resampled(groups), units_of(groups).groups
        self.matrix, self.present = evaluation.matrix(), evaluation.present()
        self.iou = overlap(self.matrix)
        self.drawn_mean, self.drawn_iou = evaluation.drawn_overlap(self.draws)
        self.near = evaluation.kept["edges"].sum(0)
        shown = evaluation.kept["table"].sum(2).T > 0
        self.resampling = resampling_of(evaluation.rows, dict(zip(self.labels, shown, strict=True)))

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
            score = bootstrap(scores[name], np.asarray(values), self.count, self.groups).to_dict()
            number = Number.of(score, called, fact.format(edge, band, self._reach()))
            numbers[name] = number._replace(**_UNITS.get(name, {}))
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
        recall, precision = ratio(own, self.matrix.sum(1)), ratio(own, self.matrix[:, :-1].sum(0))
        f1, share = edge_scores(self.near)[0], ratio(self.matrix.sum(1), self.matrix.sum())
        rows: list[tuple[Cell, ...]] = []
        for i, label in enumerate(self.labels):
            if not self.present[i]:
                continue
            score = Number.of(
                bootstrap(float(self.iou[i]), self.drawn_iou[:, i], self.count, self.groups).to_dict()
            )
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
        intervals = told({"resampling": self.resampling}) or ["Intervals: bootstrap over groups of images."]
        return f"{left}Edges match within {edge} px. {' '.join(intervals)}{named}"

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
            f"mIoU {number.text()}{span}, over {over}, on {self.scope.counted(self.count)}; weakest: "
            f"{'; '.join([f'{weak[1]} {weak[0]:.0%}', *warnings(self.resampling)])}."
        )

    def _details(self, numbers: Mapping[str, Number]) -> dict[str, Any]:
        table = self._per_class()
        per_class = {str(row[0]): _numbered(table.columns, row) for row in table.rows}
        absent = [label for label, there in zip(self.labels, self.present, strict=True) if not there]
        return {
            "pictures": self.count,
            **({"resampling": self.resampling} if self.resampling else {}),
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


def _error(bins: Array) -> float:
    """Return the calibration error of bins filled by `_count`."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(1.0, float(bins[:, 0].sum())))
