"""Scores a model on rows of a manifest, batch by batch, through the preprocessing that users' pictures take."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.doctor import workers
from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.source import load
from vitrail.data.split import leaks
from vitrail.infer.predictor import Predictor, Ready, Request
from vitrail.tasks.result import Evaluation, Scope

BATCH = 64


def evaluate(
    predictor: Predictor, rows: Sequence[Row], root: Path, request: Request | None = None
) -> Evaluation:
    """Return the evaluation of a model on rows, in order; no more than a batch of answers is held by this.

    Raises:
        DataError: a picture can no longer be read, or there is none.
        UnknownNameError: the truth of a row is none that the model knows.
    """
    if not rows:
        raise DataError("There is no picture to score. Add pictures to the split, or name another one.")
    request = request or Request(predictor.point)
    evaluation, task = predictor.task.evaluation(), predictor.task
    steps = predictor.preprocess

    def ready(row: Row) -> Ready:
        image = load(root, row.path, steps.channels, row.part, raw=steps.raw).image
        return predictor.ready(image, request.point)

    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            part = list(pool.map(ready, some))
            truths = [task.read(row, root) for row in some]
            evaluation.update(some, predictor.outputs(part, request), truths, [one.geometry for one in part])
    return evaluation


def rows_of(manifest: Manifest, split: str) -> list[Row]:
    """Return the kept rows of a split; raises a DataError where it is empty."""
    rows = manifest.rows(split)
    if not rows:
        raise DataError(
            f"The split {split!r} holds no pictures, so nothing can be scored. Add pictures to it."
        )
    return rows


def scope_of(manifest: Manifest, split: str) -> Scope:
    """Return how a split of a run's own pictures is called, and which of them have a twin in training."""
    return Scope(leaked=frozenset(leaks(manifest) if split == TEST else ()))
