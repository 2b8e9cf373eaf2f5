"""Cross-validation of a draft: each image is predicted once, by a head that was not trained on it.

Calibration settings of a task (temperature, thresholds) are fitted for each fold on the predictions of the other folds,
so that no prediction is scored with a setting that was fitted on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.runs.network import build_task
from vitrail.tasks.base import Ask, Task
from vitrail.tasks.probe import DenseProbe
from vitrail.tasks.result import Evaluation, Result, Scope

HOW = "images, each predicted once, by a head that was not trained on it"


class Answered(NamedTuple):
    """Images with targets, out-of-fold logits (n, k), and the fold of each image (n,).

    A dense probe has logits of patches, (n, p, k), on a `grid`; `numbers` are their targets, (n, p), and `at` are the
    geometries of the inputs on the images.
    """

    rows: Sequence[Row]
    truths: Sequence[Any]
    logits: NDArray[np.float32]
    folds: NDArray[np.int64]
    numbers: NDArray[np.int64] | None = None
    at: Sequence[Geometry] = ()
    grid: tuple[int, int] = (1, 1)


class Folded(NamedTuple):
    """The scores of a draft, its task calibrated on all out-of-fold predictions, and these predictions."""

    evaluation: Evaluation
    result: Result
    task: Task[Any, Any]
    answered: Answered

    def said(self, id: str) -> Any:
        """Return the out-of-fold prediction of an image, for tasks with a dense probe."""
        at = next(i for i, row in enumerate(self.answered.rows) if row.id == id)
        probe: Any = self.task.probe
        output = probe.output(self.answered.logits[[at]], self.answered.grid)
        return self.task.decode(output, [self.answered.at[at]], Ask())[0]


def score_by_folds(task: Task[Any, Any], name: str, answered: Answered) -> Folded:
    """Score a draft of a task that has a probe; `name` is the name of the task in the recipe."""
    final = _calibrated(task, name, answered, np.ones(len(answered.rows), dtype=bool))
    whole: Evaluation = final.evaluation()
    for fold in np.unique(answered.folds):
        held = answered.folds == fold
        whole.merge(_evaluated(_calibrated(task, name, answered, ~held), answered, held))
    probe: Any = final.probe
    return Folded(whole, probe.result(whole, Scope(HOW)), final, answered)


def gain_from_twice(now: float, half: float) -> float:
    """Estimate the gain from twice the images, if the error keeps falling by the same factor (a power law)."""
    error, before = 1 - now, 1 - half
    return error - error * error / before if 0 < error < before else 0.0


def _evaluated(task: Task[Any, Any], answered: Answered, some: NDArray[np.bool_]) -> Evaluation:
    """Return the evaluation of a subset of the predictions."""
    at = np.flatnonzero(some).tolist()
    evaluation: Evaluation = task.evaluation()
    probe, output = task.probe, {"logits": torch.from_numpy(answered.logits[at])}
    where = [Geometry((1, 1), (1, 1), (0.0, 0.0, 1.0, 1.0))] * len(at)
    if isinstance(probe, DenseProbe):
        output = probe.output(answered.logits[at], answered.grid)
        where = [answered.at[i] for i in at]
    evaluation.update([answered.rows[i] for i in at], output, [answered.truths[i] for i in at], where)
    return evaluation


def _calibrated(
    task: Task[Any, Any], name: str, answered: Answered, some: NDArray[np.bool_]
) -> Task[Any, Any]:
    """Return the task calibrated on a subset of the predictions."""
    if isinstance(probe := task.probe, DenseProbe) and answered.numbers is not None:
        fitted = probe.calibrate(answered.logits[some], answered.numbers[some])
    else:
        fitted = _evaluated(task, answered, some).calibrate()
    return build_task(name, task.truth, {**task.settings.model_dump(), **fitted})
