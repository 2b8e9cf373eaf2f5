"""What a report says of a detection: numbers with intervals, tables, sections, a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count, shorten
from vitrail.data.manifest import group_key
from vitrail.metrics.box_ap import average_precision
from vitrail.metrics.box_matching import MOST
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.tasks.detect.report_sections import calibrated, curves, galleries, matrix_of
from vitrail.tasks.result import (
    Cell,
    Column,
    Limits,
    Matrix,
    Number,
    Overlays,
    Reliability,
    Result,
    Scope,
    Section,
    Table,
    TableSection,
)

if TYPE_CHECKING:
    from vitrail.tasks.detect.object_evaluation import ObjectEvaluation

Array = NDArray[np.float64]

FACTS = {
    "map": ("mAP50-95", "mean average precision, IoU 0.50 to 0.95"),
    "map50": ("mAP50", "mean average precision at IoU 0.5"),
    "map75": ("mAP75", "mean average precision at IoU 0.75"),
    "map_small": ("mAP50-95, small", "mAP50-95 of boxes up to 32² px"),
    "map_medium": ("mAP50-95, medium", "mAP50-95 of boxes from 32² to 96² px"),
    "map_large": ("mAP50-95, large", "mAP50-95 of boxes from 96² px"),
    "ar": ("AR", ""),
    "precision": ("precision", "of the answers are right, at a score of {0:.3g}"),
    "recall": ("recall", "of the true boxes are found, at a score of {0:.3g}"),
    "f1": ("F1", "F1 at a score of {0:.3g}"),
}
"""Score → its name in tables and its text on pages, with the threshold as {0}."""

COLUMNS = (
    Column("class"), Column("images", right=True), Column("boxes", right=True), Column("AP50", spread=True),
    Column("AP50-95", spread=True), Column("precision", right=True), Column("recall", right=True),
)  # fmt: skip
"""The columns of the table of classes."""

FEWER = 5
"""Only every fifth bootstrap sample is scored for all numbers but mAP."""

WEAK = 0.3
"""Classes with a lower AP50 are named as limits."""


class ObjectReport:
    """The scores of an evaluation with their intervals, as a sentence, tables and sections."""

    facts: ClassVar[Mapping[str, tuple[str, str]]] = FACTS
    columns: ClassVar[tuple[Column, ...]] = COLUMNS

    def __init__(self, evaluation: ObjectEvaluation[Any, Any], scope: Scope) -> None:
        self.evaluation, self.scope, self.labels = evaluation, scope, evaluation.labels
        self.main, self.prefix, (self.noun, self.nouns) = evaluation.main, evaluation.prefix, evaluation.nouns
        self.count, self.threshold = len(evaluation.rows), evaluation.threshold
        self.draws = resampled([group_key(row) for row in evaluation.rows])
        self.point = average_precision(evaluation.objects).precision[0]  # (k, IoU thresholds)
        self.drawn = average_precision(evaluation.objects, self.draws)
        self.matrix = evaluation.matrix()
        self.truths = evaluation.truths
        self.present = self.truths.sum(0) > 0

    def result(self, fitted_on: str) -> Result:
        """Return what the evaluation found; `fitted_on` names the images that fitted the temperature."""
        numbers, table, calibration = self._numbers(), self._per_class(), calibrated(self.evaluation)
        sections: list[Section] = [
            TableSection("Class by class", table, self._note(), summary=self._duplicates()),
            self._confusion(),
            *curves(self.evaluation),
            # Without a confident answer there is nothing to compare.
            *(
                [Reliability(f"Calibration of {self.nouns}", calibration, fitted_on)]
                if calibration["answers"]
                else []
            ),
            *self._galleries(),
            Limits("", self._limits()),
        ]
        details = {"test": self._details(numbers, table), "calibration": calibration}
        return Result(self.main, numbers, self._verdict(numbers), (table,), sections, details)

    def _numbers(self) -> dict[str, Number]:
        scores = self.evaluation.resample(np.ones(self.count))
        drawn = self.evaluation.drawn(self.draws[::FEWER])
        numbers = {}
        for name, (called, fact) in self.facts.items():
            if not np.isfinite(scores[name]) and name != self.main:
                continue
            samples = self.drawn.mean() if name == self.main else np.repeat(drawn[name], FEWER)
            score = bootstrap(scores[name], samples, self.count).to_dict()
            numbers[name] = Number.of(score, called, fact.format(self.threshold))
        return numbers

    def _rates(self) -> tuple[Array, Array]:
        """Return precision and recall of each class at the threshold: (k,); NaN where nothing is counted."""
        k = len(self.labels)
        own, answers, true = np.diagonal(self.matrix)[:k], self.matrix.sum(0)[:k], self.matrix.sum(1)[:k]
        precision, recall = (
            np.divide(own, whole, out=np.full(k, np.nan), where=whole > 0) for whole in (answers, true)
        )
        return precision, recall

    def _per_class(self) -> Table:
        rates = self._rates()
        rows: list[tuple[Cell, ...]] = []
        for i in np.flatnonzero(self.present).tolist():
            images = int((self.truths[:, i] > 0).sum())
            half = bootstrap(float(self.point[i, 0]), self.drawn.precision[:, i, 0], images)
            whole = bootstrap(float(self.point[i].mean()), self.drawn.precision[:, i].mean(1), images)
            spread = (Number.of(one.to_dict()) for one in (half, whole))
            plain = (Number(float(one[i]) if np.isfinite(one[i]) else None) for one in rates)
            cells = (*spread, *plain, *self.more(i, images))
            rows.append((self.labels[i], images, int(self.truths[:, i].sum()), *cells))
        return Table(self.columns, tuple(rows))

    def more(self, kind: int, images: int) -> tuple[Cell, ...]:
        """Return the cells of more columns for a class, which this number of images shows."""
        return ()

    def _absent(self) -> list[str]:
        return [label for label, there in zip(self.labels, self.present, strict=True) if not there]

    def _duplicates(self) -> str:
        """Return a line on pairs of answers in one place, "" if there is none."""
        pairs, mixed = self.evaluation.kept["duplicates"].sum(0).tolist()
        if not pairs:
            return ""
        other = f", {mixed:,} of them of two classes" if mixed else ""
        named = count(pairs, "pair of answers overlaps", "pairs of answers overlap")
        return f"{named} by more than 0.9{other}"

    def _note(self) -> str:
        absent, doubled = self._absent(), self._duplicates()
        left = f"No image shows {shorten(absent)}: left out of every mean. " if absent else ""
        return (
            f"{left}Average precision as COCO computes it, from the best {MOST} {self.nouns} of a class in an image "
            f"(maxDets), without a threshold. Precision and recall: a score of at least {self.threshold:.3g}, and "
            f"IoU 0.5. Intervals: bootstrap over groups of images.{f' {doubled}.' if doubled else ''}"
        )

    def _confusion(self) -> Matrix:
        counted = f"Counted are {self.nouns} with a score of at least {self.threshold:.3g}, at IoU 0.5."
        return matrix_of(self.labels, self.evaluation.rows, self.evaluation.pairs, counted)

    def _galleries(self) -> list[Overlays]:
        hint = f"Truth and answer, {self.nouns} with a score of at least {self.threshold:.3g}."
        tallies, f1 = self.evaluation.tallies(), self.evaluation.f1()
        return galleries(self.evaluation.rows, tallies, f1, self.noun, hint)

    def _limits(self) -> tuple[str, ...]:
        weak = [
            f"{self.labels[i]} ({self.point[i, 0]:.0%})"
            for i in np.flatnonzero(self.present).tolist()
            if self.point[i, 0] < WEAK
        ]
        return (f"AP50 below {WEAK:.0%}: {', '.join(weak)}.",) if weak else ()

    def _verdict(self, numbers: Mapping[str, Number]) -> str:
        if not self.present.any():
            return f"No true {self.noun} in {self.scope.counted(self.count)}, so nothing can be scored."
        main, half = numbers[self.main], numbers[f"{self.prefix}map50"]
        span = f", {main.span()}" if main.low is not None else ""
        rates = (("recall", f"of the true {self.nouns} are found"), ("precision", "of the answers are right"))
        at = "; ".join(f"{numbers[name].text(0)} {said}" for name, said in rates if name in numbers)
        weak = min((float(self.point[i, 0]), self.labels[i]) for i in np.flatnonzero(self.present))
        return (
            f"{main.name} {main.text()}{span}, {half.name} {half.text()}, over "
            f"{count(int(self.present.sum()), 'class', 'classes')}, on {self.scope.counted(self.count)}; at a score "
            f"of {self.threshold:.3g}: {at}; weakest: {weak[1]}, AP50 {weak[0]:.0%}."
        )

    def _details(self, numbers: Mapping[str, Number], table: Table) -> dict[str, Any]:
        pairs, mixed = self.evaluation.kept["duplicates"].sum(0).tolist()
        return {
            "pictures": self.count,
            **{name: number.to_dict() for name, number in numbers.items()},
            "per_class": {str(row[0]): plain(table, row) for row in table.rows},
            "absent": self._absent(),
            "threshold": self.threshold,
            f"max_{self.nouns}": MOST,
            "confusion": {"labels": [*self.labels, "invented, missed"], self.nouns: self.matrix.tolist()},
            "duplicates": {"pairs": pairs, "of_two_classes": mixed},
        }


def plain(table: Table, row: tuple[Cell, ...]) -> dict[str, Any]:
    """Return the cells of a class as plain data, with the intervals of those that have one."""
    cells = {}
    for column, cell in zip(table.columns[1:], row[1:], strict=True):
        plain = cell.value if isinstance(cell, Number) else cell
        cells[column.name] = cell.to_dict() if isinstance(cell, Number) and column.spread else plain
    return cells
