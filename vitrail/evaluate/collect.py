"""Scores a model on rows of a manifest, batch by batch, through the preprocessing that users' pictures take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.data.doctor import workers
from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.sample import Geometry
from vitrail.data.source import load
from vitrail.data.split import leaks
from vitrail.infer.predictor import Predictor, Ready
from vitrail.tasks.base import Task
from vitrail.tasks.result import Evaluation, Scope

BATCH = 64


class Answered(NamedTuple):
    """A batch of rows, what the network answered, in float32 on the CPU, and where its inputs lay."""

    rows: Sequence[Row]
    output: Mapping[str, Tensor]
    at: Sequence[Geometry]


def evaluate(predictor: Predictor, rows: Sequence[Row], root: Path) -> Evaluation:
    """Return the evaluation of a model on rows, in order; no more than a batch of answers is held by this.

    Raises:
        DataError: a picture can no longer be read, or there is none.
        UnknownNameError: the truth of a row is none that the model knows.
    """
    if not rows:
        raise DataError("There is no picture to score. Add pictures to the split, or name another one.")
    evaluation: Evaluation = predictor.task.evaluation()
    for part in _answers(predictor, rows, root):
        evaluation.update(part.rows, part.output, truths(predictor.task, part.rows, root), part.at)
    return evaluation


def truths(task: Task[Any, Any], rows: Sequence[Row], root: Path) -> list[Any]:
    """Return the truth of each row as the task puts it."""
    return [task.target(row.label) for row in rows]


def _answers(predictor: Predictor, rows: Sequence[Row], root: Path) -> Iterator[Answered]:
    """Yield answers batch by batch; pictures are read on all cores."""

    def ready(row: Row) -> Ready:
        return predictor.ready(load(root, row.path, predictor.preprocess.channels).image)

    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            part = list(pool.map(ready, some))
            output = predictor.outputs(torch.stack([one.pixels for one in part]))
            yield Answered(some, {"logits": output}, [one.geometry for one in part])


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
