"""The parts of a report that show objects and curves: confusion, thresholds, calibration, images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.box_ap import RECALLS, recall_curves
from vitrail.metrics.box_confusion import BoxPairs, confusion
from vitrail.metrics.calibration import calibration
from vitrail.metrics.score_threshold import threshold_curve
from vitrail.metrics.temperature import scale_scores
from vitrail.tasks.result import Curve, Matrix, Overlays, Shot

if TYPE_CHECKING:
    from vitrail.data.manifest import Row
    from vitrail.tasks.detect.object_evaluation import ObjectEvaluation

SHOWN = 6
"""Images of each kind on a page: the worst and the best."""

OPENED = 24
"""Images that a cell of the matrix keeps."""

LINES = 6
"""Classes with a line of their own in a figure, those with the most objects."""

INVENTED, MISSED = "invented", "missed"

LEAST = 0.05
"""Objects with a lower score at temperature 1 do not count in the calibration: almost all are wrong and never seen."""


def matrix_of(labels: Sequence[str], rows: Sequence[Row], pairs: Sequence[BoxPairs], note: str) -> Matrix:
    """Return the confusion matrix with rows for true classes and invented objects; each cell has its images once."""
    best: dict[tuple[int, int], dict[str, float]] = {}
    for row, one in zip(rows, pairs, strict=True):
        for *at, score in zip(one.truth.tolist(), one.answer.tolist(), one.scores.tolist(), strict=True):
            cell = best.setdefault((at[0], at[1]), {})
            cell[row.id] = max(score, cell.get(row.id, 0.0))
    true, columns, none = (*labels, INVENTED), (*labels, MISSED), len(labels)
    shots = {}
    for (i, j), images in sorted(best.items()):
        first = sorted(images.items(), key=lambda image: -image[1])[:OPENED]
        shots[i, j] = tuple(
            Shot(name, true[i], columns[j], None if j == none else score, i == j) for name, score in first
        )
    table = tuple(tuple(row) for row in confusion(pairs, none).tolist())
    return Matrix("Confusion matrix", true, table, shots, columns, note)


def curves(evaluation: ObjectEvaluation[Any, Any]) -> list[Curve]:
    """Return precision, recall and F1 by threshold, and precision by recall; none without a true object."""
    answers = evaluation.answers()
    if not answers.truths:
        return []
    one = threshold_curve(*answers, np.linspace(0.0, 1.0, 101))
    series = {
        name: tuple(
            (round(float(x), 2), round(float(y), 6))
            for x, y in zip(one.thresholds, values, strict=True)
            if np.isfinite(y)
        )
        for name, values in (("precision", one.precision), ("recall", one.recall), ("F1", one.f1))
    }
    note = f"Over all classes, at IoU 0.5. The threshold of this model is {evaluation.threshold:.3g}."
    return [
        Curve(
            "Scores by threshold", series, f"score from which {_a(evaluation.nouns[0])} counts", "share", note
        ),
        _by_recall(evaluation),
    ]


def _by_recall(evaluation: ObjectEvaluation[Any, Any]) -> Curve:
    values, true = recall_curves(evaluation.objects), evaluation.truths.sum(0)
    frequent = [i for i in np.argsort(-true, kind="stable").tolist() if true[i]]
    lines = {evaluation.labels[i]: values[i] for i in frequent[:LINES]}
    if len(frequent) > 1:
        lines = {"mean of the classes": np.nanmean(values[frequent], axis=0), **lines}
    series = {
        name: tuple(zip(RECALLS.round(2).tolist(), line.round(6).tolist(), strict=True))
        for name, line in lines.items()
    }
    more = (
        f" Shown are the {LINES} classes with the most {evaluation.nouns[1]}."
        if len(frequent) > LINES
        else ""
    )
    note = f"At IoU 0.5; the area under a line is AP50.{more}"
    return Curve("Precision by recall", series, "recall", "precision", note)


def calibrated(evaluation: ObjectEvaluation[Any, Any]) -> dict[str, Any]:
    """Return the calibration of the scores, as report.json contains it: an object is right at IoU 0.5 with its class.

    Objects of an image are not independent, so no error expected by chance is reported.
    """
    scores, right, _ = evaluation.answers()
    plain = scale_scores(scores, 1 / evaluation.temperature)
    sure = plain >= LEAST
    values = calibration(plain[sure], scores[sure], evaluation.temperature, right[sure]).to_dict()
    del values["ece_noise"]
    return {**values, "least": LEAST}


def galleries(
    rows: Sequence[Row], tallies: NDArray[np.int64], scores: NDArray[np.float64], noun: str, hint: str
) -> list[Overlays]:
    """Return the worst and the best images by their scores (n,), among equal ones the one with most mistakes first.

    `tallies` (n, 4) are the right, missed, invented and mistaken objects of each image.
    """
    order = np.lexsort((-tallies[:, 1:].sum(1), scores)).tolist()
    shots = [Shot(rows[i].id, "", "", caption=_caption(tallies[i].tolist(), noun)) for i in order]
    worst, best = tuple(shots[:SHOWN]), tuple(shots[SHOWN:][::-1][:SHOWN])
    if not best:
        return [Overlays("The images, the worst first", hint, worst)]
    return [Overlays("The worst images", hint, worst), Overlays("The best images", hint, best)]


def _caption(tally: list[int], noun: str) -> str:
    right, *wrong = tally
    said = [f"{n} {name}" for n, name in zip(wrong, (MISSED, INVENTED, "of a wrong class"), strict=True) if n]
    return ", ".join(said) or (f"all {right} right" if right else f"no {noun}, and none found")


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
