"""Scores of a draft: every picture answered once, by a head that had not seen it.

What a task learns from such answers (temperature, thresholds) is learnt for each fold from the answers of the
others, so that no answer is judged by a setting that it helped to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from vitrail.data.manifest import Row
from vitrail.data.sample import Geometry
from vitrail.evaluate.calibration import Calibration, calibration
from vitrail.evaluate.labels import LabelJudged, LabelScores
from vitrail.evaluate.scores import Judged, Scores
from vitrail.metrics.ranking import mean_average_precision
from vitrail.runs.assemble import build_task
from vitrail.tasks.base import Ask, Task
from vitrail.tasks.multilabel.task import MultiLabel

Logits = NDArray[np.float32]


class Answered(NamedTuple):
    """Pictures, what heads that had not seen them said (n, k), and which fold held each (n,)."""

    rows: Sequence[Row]
    logits: Logits
    folds: NDArray[np.int64]


class Folded(NamedTuple):
    """The scores of a draft, how honest its probabilities are, and its task with what all answers taught it."""

    scores: Scores | LabelScores
    calibration: Calibration
    task: Task[Any, Any]


def score_by_folds(task: Task[Any, Any], name: str, answered: Answered) -> Folded:
    """Score a draft; `name` is the task's in the recipe."""
    final = _settled(task, name, answered, np.ones(len(answered.rows), dtype=bool))
    answers: list[Any] = [None] * len(answered.rows)
    temperatures = np.ones(len(answered.rows))
    for fold in np.unique(answered.folds):
        held = answered.folds == fold
        own = _settled(task, name, answered, ~held)
        temperatures[held] = own.temperature  # type: ignore[attr-defined]
        at = np.flatnonzero(held)
        nowhere = [Geometry((1, 1), (1, 1), (0.0, 0.0, 1.0, 1.0))] * len(at)
        for i, answer in zip(
            at, own.decode({"logits": torch.from_numpy(answered.logits[at])}, nowhere, Ask()), strict=True
        ):
            answers[i] = answer
    logits = answered.logits.astype(np.float64)
    scaled = logits / temperatures[:, None]
    at_last = final.temperature  # type: ignore[attr-defined]
    if isinstance(final, MultiLabel):
        judged = tuple(LabelJudged(row, one) for row, one in zip(answered.rows, answers, strict=True))
        # The probabilities of the scores are those after each fold's own temperature.
        scores = LabelScores(judged, final.labels, scaled, flags(final, answered.rows), 1.0)
        before, after = expit(logits).ravel(), expit(scaled).ravel()
        return Folded(scores, calibration(before, after, at_last, scores.truth.ravel()), final)
    single = Scores(tuple(Judged(r, a) for r, a in zip(answered.rows, answers, strict=True)), final.labels)
    hits = np.array([one.right for one in single.judged])
    before, after = softmax(logits, axis=1).max(axis=1), softmax(scaled, axis=1).max(axis=1)
    return Folded(single, calibration(before, after, at_last, hits), final)


def share_right(task: Task[Any, Any], rows: Sequence[Row], logits: Logits) -> float:
    """Return the one number that more pictures should raise: the share right, or mAP of labels."""
    if isinstance(task, MultiLabel):
        return mean_average_precision(logits.astype(np.float64), flags(task, rows))
    return float(
        np.mean([task.target(row.label) == best for row, best in zip(rows, logits.argmax(1), strict=True)])
    )


def gain_from_twice(now: float, half: float) -> float:
    """Return what twice the pictures would add, if errors go on falling by the same factor (a power law)."""
    error, before = 1 - now, 1 - half
    return error - error * error / before if 0 < error < before else 0.0


def flags(task: MultiLabel, rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Return one row a picture with True at its labels: (n, k)."""
    truth = np.zeros((len(rows), len(task.labels)), dtype=bool)
    for line, row in zip(truth, rows, strict=True):
        line[list(task.target(row.label))] = True
    return truth


def _settled(task: Task[Any, Any], name: str, answered: Answered, some: NDArray[np.bool_]) -> Task[Any, Any]:
    """Return the task with what it learns from some of the answers."""
    targets = [task.target(row.label) for row, taken in zip(answered.rows, some, strict=True) if taken]
    learnt = task.settle({"logits": torch.from_numpy(answered.logits[some])}, targets)
    return build_task(name, task.labels, {**task.settings.model_dump(), **learnt})
