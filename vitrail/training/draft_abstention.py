"""Fit "none of these" and label sets of a draft, on the features that it has computed anyway.

The Gaussians are fitted on three folds of five, and the other two set the limit: the model file keeps its promise with
exactly these Gaussians. Label sets are calibrated on the answers of cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.data.manifest import Manifest, Row
from vitrail.evaluate.abstention import (
    Evidence,
    Fitted,
    far_vectors,
    fit_abstention,
    independent,
    label_scores,
    some_of_each,
)
from vitrail.evaluate.cross_validation import Answered, Folded
from vitrail.infer.backends import Backend
from vitrail.infer.predictor import Predictor
from vitrail.metrics.novelty import Known
from vitrail.reports.fit_abstention import store
from vitrail.runs.run import Run
from vitrail.tasks.abstention import Abstaining
from vitrail.tasks.base import Task
from vitrail.tasks.probe import AbstainingProbe, Vectors
from vitrail.training.feature_cache import Frozen

HELD = 0.4
"""Share of the folds that set the limit."""


class Cached(NamedTuple):
    """Cached features of a data set, from one backend."""

    frozen: Frozen
    manifest: Manifest
    plan: Backend

    def known(self, rows: Sequence[Row], classes: NDArray[np.int64]) -> Known:
        """Return the vectors of rows with their classes."""
        return Known(_doubled(self.frozen.by_place(self.manifest, rows, self.plan)), classes)


def fit_on_features(cached: Cached, answered: Answered, task: Task[Any, Any], source: str) -> Fitted | None:
    """Return the fit of a draft from its out-of-fold answers; None if the task does not support it."""
    if not isinstance(task, Abstaining):
        return None
    rows, classes, folds = list(answered.rows), np.array(answered.truths), answered.folds
    number = {row.id: i for i, row in enumerate(rows)}
    held = folds < max(1, round(HELD * (int(folds.max()) + 1)))
    apart = [number[row.id] for row in independent([rows[i] for i in np.flatnonzero(held)])]
    rest = np.flatnonzero(~held)
    some = rest[some_of_each(classes[rest])].tolist()
    train, kept = (cached.known([rows[i] for i in chosen], classes[chosen]) for chosen in (some, apart))
    scores = task.nonconformity({"logits": torch.from_numpy(answered.logits)})
    each = [number[row.id] for row in independent(rows)]
    labels = label_scores(scores[each], classes[each], len(task.labels))
    frozen = cached.frozen
    far = far_vectors(
        frozen.preprocess, source, lambda images: _doubled(frozen.of_images(images, cached.plan))
    )
    return fit_abstention(Evidence(train, kept, far, labels, learned=False, split="held-out"))


def stored(run: Run, folded: Folded, fitted: Fitted | None) -> Folded:
    """Store a fit in the model file of a draft, and return its scores with what a report says of the fit."""
    probe: Any = folded.task.probe
    if fitted is None or not isinstance(probe, AbstainingProbe):
        return folded
    store(run.model_path, Predictor(run.folder), fitted)
    return folded._replace(result=probe.with_abstention(folded.result, fitted.abstention))


def _doubled(vectors: dict[str, Vectors]) -> dict[str, NDArray[np.float64]]:
    return {place: x.astype(np.float64) for place, x in vectors.items()}
