"""What a report says of panoptic maps: qualities with intervals, tables, confusion, images, a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.data.labels import count, shorten
from vitrail.data.manifest import group_key
from vitrail.metrics.box_confusion import confusion
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.tasks.detect.report import plain
from vitrail.tasks.detect.report_sections import galleries, matrix_of
from vitrail.tasks.result import Cell, Column, Limits, Number, Result, Scope, Section, Table, TableSection

if TYPE_CHECKING:
    from vitrail.tasks.panoptic.evaluation import PanopticEvaluation

FACTS = {
    "pq": ("PQ", "panoptic quality, the mean of the classes"),
    "sq": ("SQ", "segmentation quality, the mean IoU of right segments"),
    "rq": ("RQ", "recognition quality, F1 of the segments"),
    "pq_things": ("PQ of things", "panoptic quality of things"),
    "pq_stuff": ("PQ of stuff", "panoptic quality of stuff"),
    "miou": ("mIoU", "mean overlap of the classes (IoU)"),
}
"""Score → its name in tables and its text on pages."""

CLASSES = (
    Column("class"), Column("kind"), Column("images", right=True), Column("segments", right=True),
    Column("PQ", spread=True), Column("SQ", right=True), Column("RQ", right=True), Column("IoU", right=True),
)  # fmt: skip
"""The columns of the table of classes."""

MEANS = (
    Column("mean of"), Column("classes", right=True), Column("PQ", spread=True), Column("SQ", spread=True),
    Column("RQ", spread=True),
)  # fmt: skip
"""The columns of the table of means."""

WEAK = 0.3
"""Classes with a lower PQ are named as limits."""


def report_of(evaluation: PanopticEvaluation, scope: Scope) -> Result:
    """Return what an evaluation found, with intervals."""
    return _Report(evaluation, scope).result()


class _Report:
    """The scores of an evaluation with their intervals, as a sentence, tables and sections."""

    def __init__(self, evaluation: PanopticEvaluation, scope: Scope) -> None:
        self.evaluation, self.scope, self.labels = evaluation, scope, evaluation.labels
        self.count, self.things = len(evaluation.rows), evaluation.things
        self.draws = resampled([group_key(row) for row in evaluation.rows])
        once = np.ones((1, self.count))
        self.point = [values[0] for values in evaluation.drawn_quality(once)]  # PQ, SQ, RQ: (k,) each
        self.scores = {name: float(values[0]) for name, values in evaluation.drawn(once).items()}
        self.drawn_classes, self.drawn = evaluation.drawn_quality(self.draws)[0], evaluation.drawn(self.draws)
        self.known = np.isfinite(self.point[0])
        self.true = evaluation.counts[..., 1] + evaluation.counts[..., 3]  # (images, k)

    def result(self) -> Result:
        numbers, classes, means = self._numbers(), self._per_class(), self._means()
        sections: list[Section] = [
            TableSection("Class by class", classes, self._note()),
            TableSection("Things and stuff", means, card="Things and stuff"),
            matrix_of(self.labels, self.evaluation.rows, self.evaluation.pairs, _COUNTED),
            *galleries(
                self.evaluation.rows, self.evaluation.tallies(), self.evaluation.per_image()["pq"], "segment",
                "Truth and answer, the images with the lowest and the highest PQ.",
            ),
            Limits("", self._limits()),
        ]  # fmt: skip
        details = {"test": self._details(numbers, classes, means)}
        return Result("pq", numbers, self._verdict(numbers), (classes, means), sections, details)

    def _number(self, name: str, called: str = "", fact: str = "") -> Number:
        score = bootstrap(self.scores[name], self.drawn[name], self.count)
        return Number.of(score.to_dict(), called, fact)

    def _numbers(self) -> dict[str, Number]:
        return {
            name: self._number(name, *said)
            for name, said in FACTS.items()
            if np.isfinite(self.scores[name]) or name == "pq"
        }

    def _per_class(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        pq, *other = self.point
        iou = self.evaluation.overlap()
        for i in np.flatnonzero(self.known).tolist():
            images = int((self.true[:, i] > 0).sum())
            spread = Number.of(bootstrap(float(pq[i]), self.drawn_classes[:, i], images).to_dict())
            plain = (Number(float(one[i]) if np.isfinite(one[i]) else None) for one in (*other, iou))
            kind = "thing" if self.things[i] else "stuff"
            rows.append((self.labels[i], kind, images, int(self.true[:, i].sum()), spread, *plain))
        return Table(CLASSES, tuple(rows))

    def _means(self) -> Table:
        """Return the means over all classes, over things and over stuff."""
        rows: list[tuple[Cell, ...]] = []
        of = {
            "all": ("", self.known),
            "things": ("_things", self.known & self.things),
            "stuff": ("_stuff", self.known & ~self.things),
        }
        for name, (suffix, own) in of.items():
            if own.any():
                cells = (self._number(f"{score}{suffix}") for score in ("pq", "sq", "rq"))
                rows.append((name, int(own.sum()), *cells))
        return Table(MEANS, tuple(rows))

    def _absent(self) -> list[str]:
        return [label for label, there in zip(self.labels, self.known, strict=True) if not there]

    def _note(self) -> str:
        absent = self._absent()
        left = f"No image and no answer shows {shorten(absent)}: left out of every mean. " if absent else ""
        return (
            f"{left}A segment is right if its IoU with a true one of its class is above 0.5. PQ = SQ · RQ: SQ is the "
            "mean IoU of right segments, RQ the F1 of all. Intervals: bootstrap over groups of images."
        )

    def _limits(self) -> tuple[str, ...]:
        pq = self.point[0]
        weak = [f"{self.labels[i]} ({pq[i]:.0%})" for i in np.flatnonzero(self.known) if pq[i] < WEAK]
        return (f"PQ below {WEAK:.0%}: {', '.join(weak)}.",) if weak else ()

    def _verdict(self, numbers: Mapping[str, Number]) -> str:
        if not self.true.sum():
            return f"No true segment in {self.scope.counted(self.count)}, so nothing can be scored."
        main, pq = numbers["pq"], self.point[0]
        span = f", {main.span()}" if main.low is not None else ""
        parts = ", ".join(f"{numbers[name].name} {numbers[name].text()}" for name in ("sq", "rq"))
        weak = min((float(pq[i]), self.labels[i]) for i in np.flatnonzero(self.known))
        return (
            f"PQ {main.text()}{span}, {parts}, over {count(int(self.known.sum()), 'class', 'classes')}, on "
            f"{self.scope.counted(self.count)}; weakest: {weak[1]}, PQ {weak[0]:.0%}."
        )

    def _details(self, numbers: Mapping[str, Number], classes: Table, means: Table) -> dict[str, Any]:
        matrix = confusion(self.evaluation.pairs, len(self.labels))
        return {
            "pictures": self.count,
            **{name: number.to_dict() for name, number in numbers.items()},
            "per_class": {str(row[0]): plain(classes, row) for row in classes.rows},
            "means": {str(row[0]): plain(means, row) for row in means.rows},
            "absent": self._absent(),
            "confusion": {
                "labels": [*self.labels, "invented, missed"],
                "segments": matrix.tolist(),
            },
        }


_COUNTED = "Counted are segments, as pairs at an IoU above 0.5."
