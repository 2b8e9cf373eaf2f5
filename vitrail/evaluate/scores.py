"""Counts a model's answers on pictures whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.manifest import Manifest, Row
from vitrail.data.source import read
from vitrail.evaluate.intervals import Interval, wilson
from vitrail.infer.predictor import Predictor, Source


@dataclass(frozen=True)
class Judged:
    """One picture, its truth and the answer."""

    row: Row
    prediction: Any

    @property
    def right(self) -> bool:
        """Whether the likeliest class is the true one."""
        return bool(self.prediction.label == self.row.label)


@dataclass(frozen=True)
class Scores:
    """What a model got right on one split."""

    judged: tuple[Judged, ...]
    labels: tuple[str, ...]

    @property
    def accuracy(self) -> Interval:
        """Share of right answers."""
        return wilson(sum(one.right for one in self.judged), len(self.judged))

    def matrix(self) -> NDArray[np.int64]:
        """Return counts (k, k): true class down, answer across."""
        place = {label: i for i, label in enumerate(self.labels)}
        counts = np.zeros((len(place), len(place)), dtype=np.int64)
        for one in self.judged:
            counts[place[one.row.label], place[one.prediction.label]] += 1
        return counts

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Return for each class its pictures, recall with interval, and what it is mostly taken for."""
        matrix = self.matrix()
        table = {}
        for i, label in enumerate(self.labels):
            wrong = matrix[i].copy()
            wrong[i] = 0
            taken = self.labels[int(wrong.argmax())] if wrong.any() else None
            share = wilson(int(matrix[i, i]), int(matrix[i].sum()))
            table[label] = {"pictures": int(matrix[i].sum()), **share.to_dict(), "taken_for": taken}
        return table

    def weakest(self) -> tuple[str, dict[str, Any]] | None:
        """Return the class with the lowest recall among those with pictures."""
        seen = [(label, row) for label, row in self.per_class().items() if row["pictures"]]
        return min(seen, key=lambda item: item[1]["value"], default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        return {
            "pictures": len(self.judged),
            "accuracy": self.accuracy.to_dict(),
            "per_class": self.per_class(),
            "confusion": {"labels": list(self.labels), "counts": self.matrix().tolist()},
        }


def score(predictor: Predictor, manifest: Manifest, split: str) -> Scores:
    """Ask the model about every kept picture of a split, through the one path that users' pictures take.

    Raises:
        DataError: a picture can no longer be read, or the split is empty.
    """
    rows = manifest.rows(split)
    if not rows:
        raise DataError(
            f"The split {split!r} holds no pictures, so nothing can be scored. Add pictures to it."
        )
    sources = (Source(row.id, data=read(manifest.root, row.path)) for row in rows)
    return Scores(tuple(_judged(rows, predictor, sources)), predictor.labels)


def measure(predictor: Predictor, manifest: Manifest, split: str, batch: int = 64) -> dict[str, float]:
    """Return the task's own scores on a split, whatever the task predicts.

    Raises:
        DataError: a picture can no longer be read, or the split is empty.
    """
    rows = manifest.rows(split)
    if not rows:
        raise DataError(
            f"The split {split!r} holds no pictures, so nothing can be scored. Add pictures to it."
        )
    metrics = predictor.task.metrics()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        ready = [predictor.ready(read(manifest.root, row.path)) for row in part]
        output = predictor.outputs(torch.stack([one.pixels for one in ready]))
        metrics.update(output, [predictor.task.target(row.label) for row in part])
    return metrics.compute()


def _judged(rows: Sequence[Row], predictor: Predictor, sources: Iterable[Source]) -> list[Judged]:
    judged = []
    for row, answer in zip(rows, predictor.answers(sources), strict=True):
        if answer.error:
            raise DataError(f"{row.id} was there when the data was checked: {answer.error}")
        judged.append(Judged(row, answer.prediction))
    return judged
