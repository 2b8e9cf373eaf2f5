"""Evaluate a model on rows of a manifest, batch by batch, with the same preprocessing as for prediction."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.doctor import workers
from vitrail.data.loader import load_for
from vitrail.data.manifest import TEST, Manifest, Row, group_key
from vitrail.data.spacing import of_row
from vitrail.data.split import leaks
from vitrail.infer.predictor import Predictor, Ready, Request
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.tasks.result import Evaluation, Result, Scope

BATCH = 64


def evaluate(
    predictor: Predictor, rows: Sequence[Row], root: Path, request: Request | None = None
) -> Evaluation:
    """Return the evaluation of a model on rows, in order; at most one batch of predictions is kept in memory.

    Raises:
        DataError: an image can no longer be read, or there are no images.
        UnknownNameError: a row has a class that the model does not know.
    """
    if not rows:
        raise DataError("There is no image to score. Add images to the split, or name another one.")
    request = request or Request(predictor.point)
    task = predictor.task_at(request.point)
    evaluation = task.evaluation()
    steps = predictor.preprocess
    step = BATCH if steps.zoom is None else 1  # keep only one large image in memory

    def ready(row: Row) -> Ready:
        image = load_for(steps, root, row)
        prepared = predictor.ready(image, request.point)._replace(id=row.id)
        if not task.measures:
            return prepared
        return prepared._replace(geometry=replace(prepared.geometry, spacing=of_row(row, root)))

    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            part = list(pool.map(ready, some))
            truths = [task.read(row, root) for row in some]
            done = 0
            for alike in predictor.alike(part):
                span, done = slice(done, done + len(alike)), done + len(alike)
                places = [one.geometry for one in alike]
                evaluation.update(some[span], predictor.outputs(alike, request), truths[span], places)
    return evaluation


def rows_of(manifest: Manifest, split: str) -> list[Row]:
    """Return the kept rows of a split; DataError if it is empty."""
    rows = manifest.rows(split)
    if not rows:
        raise DataError(f"The split {split!r} has no images, so nothing can be scored. Add images to it.")
    return rows


def scope_of(manifest: Manifest, split: str) -> Scope:
    """Return the scope of a split of a run's own images: which test images have a duplicate in training."""
    return Scope(leaked=frozenset(leaks(manifest) if split == TEST else ()))


def result_of(evaluation: Evaluation, rows: Sequence[Row], scope: Scope) -> Result:
    """Return the result of an evaluation; numbers without an interval get one if they can be resampled.

    It is the percentile bootstrap over images; images of one group, and duplicates, are resampled together.
    """
    result = evaluation.result(scope)
    bare = [
        name
        for name, one in result.numbers.items()
        if one.value is not None and one.low is None and not one.why
    ]
    if not bare or not rows:
        return result
    drawn = [evaluation.resample(counts) for counts in resampled([group_key(row) for row in rows])]
    numbers = dict(result.numbers)
    for name in bare:
        if name in drawn[0]:
            score = bootstrap(
                result.numbers[name].value or 0.0, np.array([one[name] for one in drawn]), len(rows)
            )
            numbers[name] = numbers[name]._replace(
                low=score.low, high=score.high, why=getattr(score, "why", "")
            )
    return result._replace(numbers=numbers)
