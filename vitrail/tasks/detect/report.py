"""What a report says of detection: numbers with intervals, tables, curves, the worst images, a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count, shorten
from vitrail.data.manifest import group_key
from vitrail.metrics.box_ap import mean_of, mean_precisions, threshold_curve
from vitrail.metrics.box_matching import MOST_FOUND, SIDES
from vitrail.metrics.calibration import calibration
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.tasks.detect.confidences import DRAWS, FEW_DRAWS, confidences
from vitrail.tasks.result import (
    Cell,
    Column,
    Curve,
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

if TYPE_CHECKING:
    from vitrail.tasks.detect.evaluation import BoxEvaluation

SHOWN = 6
"""Images of each kind on a page: the worst and the best."""

POINTS = 60
"""Points of a curve."""

WEAK = 0.3
"""Average precision of a class below which it stands under the limits."""

FACTS: Mapping[str, tuple[str, str]] = {
    "map": ("mAP50-95", "average precision (mAP, IoU 0.5 to 0.95)"),
    "map50": ("mAP50", "average precision at IoU 0.5"),
    "map75": ("mAP75", "average precision at IoU 0.75"),
    "map_small": ("mAP small", f"average precision of objects below {SIDES[0]:.0f} × {SIDES[0]:.0f} px"),
    "map_medium": ("mAP medium", f"average precision of objects up to {SIDES[1]:.0f} × {SIDES[1]:.0f} px"),
    "map_large": ("mAP large", "average precision of larger objects"),
    "precision": ("precision", "predicted boxes that are right"),
    "recall": ("recall", "objects that are found"),
    "f1": ("F1", "F1 of boxes"),
}
"""Score → its name in tables and its text on pages."""

COLUMNS = (
    Column("class"), Column("images", right=True), Column("boxes", right=True), Column("AP50", right=True, spread=True),
    Column("AP50-95", right=True, spread=True), Column("precision", right=True), Column("recall", right=True),
)  # fmt: skip


def report_of(evaluation: BoxEvaluation, scope: Scope, fitted_on: str) -> Result:
    """Return what an evaluation found, with intervals; `fitted_on` names the images that fitted the threshold."""
    return _Report(evaluation, scope).result(fitted_on)


class _Report:
    """The scores of an evaluation with their intervals, as a sentence, tables and sections."""

    def __init__(self, evaluation: BoxEvaluation, scope: Scope) -> None:
        self.evaluation, self.scope, self.labels = evaluation, scope, evaluation.labels
        self.count = len(evaluation.rows)
        self.classes = evaluation.by_class()
        self.table = mean_precisions(self.classes)
        self.drawn = evaluation.drawn(self.classes)
        self.confusion = evaluation.confusions().sum(0)
        self.present: NDArray[np.bool_] = np.logical_not(np.isnan(self.table).any(1))
        self.curve = threshold_curve(self.classes)

    def result(self, fitted_on: str) -> Result:
        numbers, per_class = self._numbers(), self._per_class()
        calibrated = self._calibration()
        sections: list[Section] = [
            TableSection("Class by class", per_class, self._note()),
            *self._curves(),
            TableSection(
                "What was taken for what", self._taken(), self._taken_note(), summary=self._doubled()
            ),
            # Without a confident box there is nothing to compare.
            *([Reliability("Calibration", calibrated, fitted_on)] if calibrated["answers"] else []),
            *self._galleries(),
            Limits("Limits", self._limits()),
        ]
        details = {"test": self._details(numbers, per_class), "calibration": calibrated}
        return Result("map", numbers, self._verdict(numbers), (per_class,), sections, details)

    # Numbers

    def _numbers(self) -> dict[str, Number]:
        evaluation = self.evaluation
        found = {
            "map": self._averaged(self.table, self.drawn),
            "map50": self._averaged(self.table[:, :1], self.drawn[..., :1]),
            "map75": self._averaged(self.table[:, 5:6], self.drawn[..., 5:6]),
        }
        for name, area in (("map_small", 1), ("map_medium", 2), ("map_large", 3)):
            classes = evaluation.by_class(area)
            table = mean_precisions(classes)
            if not np.isnan(mean_of(table)):
                drawn = evaluation.drawn(classes, FEW_DRAWS).repeat(DRAWS // FEW_DRAWS, 0)
                found[name] = self._averaged(table, drawn)
        samples = resampled([group_key(row) for row in evaluation.rows])
        tables = np.tensordot(samples, evaluation.confusions(), 1)
        each = [self._at_threshold(table) for table in tables]
        for name, value in self._at_threshold(self.confusion).items():
            found[name] = bootstrap(value, np.array([one[name] for one in each]), self.count).to_dict()
        return {
            name: Number.of({"low": None, "high": None, **score}, *FACTS[name])
            for name, score in found.items()
        }

    def _averaged(self, table: Any, drawn: Any) -> dict[str, Any]:
        values = np.array([mean_of(one) for one in drawn])
        return bootstrap(mean_of(table), values, self.count).to_dict()

    def _at_threshold(self, table: Any) -> dict[str, float]:
        """Return precision, recall and F1 at the threshold, over all classes."""
        right = float(np.trace(table[:-1, :-1]))
        found, true = float(table[:, :-1].sum()), float(table[:-1].sum())
        return {
            "precision": right / max(found, 1),
            "recall": right / max(true, 1),
            "f1": 2 * right / max(found + true, 1),
        }

    def _per_class(self) -> Table:
        objects = np.stack([one.objects[:, 0] for one in self.evaluation.matches()])
        rows: list[tuple[Cell, ...]] = []
        for kind, label in enumerate(self.labels):
            if not self.present[kind]:
                continue
            own = self.confusion[kind, kind]
            images, boxes = int((objects[:, kind] > 0).sum()), int(objects[:, kind].sum())
            half, whole = (
                bootstrap(float(self.table[kind, cut].mean()), self.drawn[:, kind, cut].mean(-1), images)
                for cut in (slice(0, 1), slice(None))
            )
            precision = Number(float(own / max(1, self.confusion[:, kind].sum())))
            recall = Number(float(own / max(1, self.confusion[kind].sum())))
            scores = (Number.of(half.to_dict()), Number.of(whole.to_dict()))
            rows.append((label, images, boxes, *scores, precision, recall))
        return Table(COLUMNS, tuple(rows))

    # Sections

    def _note(self) -> str:
        absent = [label for label, there in zip(self.labels, self.present, strict=True) if not there]
        left = f"No image contains {shorten(absent)}: left out of every mean. " if absent else ""
        return (
            f"{left}As COCO counts: the {MOST_FOUND} most confident boxes of a class in an image, no threshold. "
            f"Precision and recall are at a confidence of {self.evaluation.threshold:.2g} and IoU 0.5. Intervals: "
            "bootstrap over groups of images."
        )

    def _curves(self) -> list[Curve]:
        curve = self.curve
        if not len(curve.confidence):
            return []
        at = np.unique(np.linspace(0, len(curve.confidence) - 1, POINTS).astype(int))
        named = (("precision", curve.precision), ("recall", curve.recall), ("F1", curve.f1))
        by_threshold = {
            name: [(float(x), float(y)) for x, y in zip(curve.confidence[at], values[at], strict=True)]
            for name, values in named
        }
        best = f"F1 is best at {curve.best():.2g} here; the model uses {self.evaluation.threshold:.2g}."
        both = [(float(x), float(y)) for x, y in zip(curve.recall[at], curve.precision[at], strict=True)]
        return [
            Curve("Precision, recall and F1 by threshold", by_threshold, "confidence", "share", best),
            Curve("Precision by recall", {"all classes": both}, "recall", "precision", "At IoU 0.5."),
        ]

    def _taken(self) -> Table:
        """Return the confusion at the threshold, with what was missed and what was invented."""
        columns = (
            Column("truth"),
            *(Column(label, right=True) for label in self.labels),
            Column("missed", right=True),
        )
        rows: list[tuple[Cell, ...]] = [
            (label, *(int(one) for one in self.confusion[kind])) for kind, label in enumerate(self.labels)
        ]
        rows.append(("invented: nothing is there", *(int(one) for one in self.confusion[-1, :-1]), "–"))
        return Table(columns, tuple(rows))

    def _taken_note(self) -> str:
        return (
            f"Boxes of at least {self.evaluation.threshold:.2g} confidence, paired with objects from IoU 0.5; columns "
            f"are the answers. {self._doubled()}"
        )

    def _doubled(self) -> str:
        pairs = sum(one.doubled for one in self.evaluation.kept["judged"])
        return f"{count(pairs, 'pair')} of predicted boxes overlap by IoU 0.9 or more."

    def _calibration(self) -> dict[str, Any]:
        after, right = confidences(self.classes)
        logits = (np.log(after) - np.log1p(-after)) * self.evaluation.temperature
        before = 1 / (1 + np.exp(-logits))
        return calibration(before, after, self.evaluation.temperature, right).to_dict()

    def _galleries(self) -> list[Overlays]:
        each = self.evaluation.per_image()
        order = np.lexsort((-(each["missed"] + each["invented"]), each["f1"])).tolist()
        shots = [Shot(self.evaluation.rows[i].id, "", "", caption=_mistakes(each, i)) for i in order]
        hint = "Truth and prediction; in colours what is matched, missed and invented."
        worst, best = tuple(shots[:SHOWN]), tuple(shots[SHOWN:][::-1][:SHOWN])
        if not best:
            return [Overlays("The images, the worst first", hint, worst)]
        return [Overlays("The worst images", hint, worst), Overlays("The best images", hint, best)]

    def _limits(self) -> tuple[str, ...]:
        means = self.table.mean(1)
        weak = [
            f"{label} ({means[kind]:.0%})"
            for kind, label in enumerate(self.labels)
            if self.present[kind] and means[kind] < WEAK
        ]
        return (f"Average precision below {WEAK:.0%}: {', '.join(weak)}.",) if weak else ()

    def _verdict(self, numbers: Mapping[str, Number]) -> str:
        whole, half = numbers["map"], numbers["map50"]
        span = f", {half.span()}" if half.low is not None else ""
        there = [(float(self.table[kind, 0]), self.labels[kind]) for kind in np.flatnonzero(self.present)]
        weak = f"; weakest: {min(there)[1]} {min(there)[0]:.0%}" if len(there) > 1 else ""
        return (
            f"mAP50 {half.text()}{span}, mAP50-95 {whole.text()}, over {count(len(there), 'class', 'classes')}, on "
            f"{self.count:,} {self.scope.called}{weak}."
        )

    def _details(self, numbers: Mapping[str, Number], per_class: Table) -> dict[str, Any]:
        absent = [label for label, there in zip(self.labels, self.present, strict=True) if not there]
        return {
            "pictures": self.count,
            **{name: number.to_dict() for name, number in numbers.items()},
            "per_class": {str(row[0]): _plain(per_class.columns, row) for row in per_class.rows},
            "absent": absent,
            "threshold": self.evaluation.threshold,
            "max_found": MOST_FOUND,
            "doubled": sum(one.doubled for one in self.evaluation.kept["judged"]),
            "confusion": {"labels": [*self.labels, "invented / missed"], "boxes": self.confusion.tolist()},
        }


def _plain(columns: Sequence[Column], row: Sequence[Any]) -> dict[str, Any]:
    """Return the cells of a row by column, numbers with an interval as plain data."""
    cells = {}
    for column, cell in zip(columns[1:], row[1:], strict=True):
        value = cell.value if isinstance(cell, Number) else cell
        cells[column.name] = cell.to_dict() if column.spread else value
    return cells


def _mistakes(each: Mapping[str, Any], i: int) -> str:
    """Return what is wrong in one image, in words."""
    named = ((each[name][i], name) for name in ("missed", "invented", "misnamed"))
    wrong = [f"{number} {name}" for number, name in named if number]
    return ", ".join(wrong) if wrong else "all found"
