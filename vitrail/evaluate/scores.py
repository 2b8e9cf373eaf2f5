"""Counts a model's answers on pictures whose truth is known: one class a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.split import leaks
from vitrail.evaluate.ask import ask, rows_of
from vitrail.evaluate.calibration import Calibration, calibration
from vitrail.evaluate.classwise import Classwise, Counts, classwise
from vitrail.evaluate.intervals import Interval, of_rows, wilson
from vitrail.infer.predictor import Predictor
from vitrail.layers.elastic import Point

Array = NDArray[np.float64]


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
    """What a model got right on one split; `labels` are the model's classes, in order."""

    judged: tuple[Judged, ...]
    labels: tuple[str, ...]
    leaked: frozenset[str] = frozenset()
    """Ids of pictures that have a twin among those the model learnt from."""

    @property
    def rows(self) -> list[Row]:
        """The pictures."""
        return [one.row for one in self.judged]

    @property
    def accuracy(self) -> Interval:
        """Share of right answers."""
        return of_rows([one.right for one in self.judged], self.rows)

    @property
    def without_twins(self) -> Interval | None:
        """Share of right answers on the pictures that have no twin in training; None where all or none are such."""
        own = [one for one in self.judged if one.row.id not in self.leaked]
        if len(own) in (0, len(self.judged)):
            return None
        return of_rows([one.right for one in own], [one.row for one in own])

    def top(self, count: int = 5) -> Interval | None:
        """Return the share of pictures whose class is among the likeliest few; None with so few classes."""
        if len(self.labels) <= count:
            return None
        found = [one.row.label in one.prediction.labels[:count] for one in self.judged]
        return of_rows(found, self.rows)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """The place of the true class of each picture: (n,)."""
        place = {label: i for i, label in enumerate(self.labels)}
        return np.array([place[one.row.label] for one in self.judged], dtype=np.int64)

    @cached_property
    def probabilities(self) -> Array:
        """The probability of each class, in the model's order: (n, k)."""
        rows = [
            dict(zip(p.labels, p.probabilities, strict=True)) for p in (j.prediction for j in self.judged)
        ]
        return np.array([[row[label] for label in self.labels] for row in rows], dtype=np.float64)

    def matrix(self) -> NDArray[np.int64]:
        """Return counts (k, k): true class down, answer across."""
        place = {label: i for i, label in enumerate(self.labels)}
        counts = np.zeros((len(place), len(place)), dtype=np.int64)
        for true, one in zip(self.truth, self.judged, strict=True):
            counts[true, place[one.prediction.label]] += 1
        return counts

    @cached_property
    def classwise(self) -> Classwise:
        """Precision, F1, AUROC and average precision of each class, and their means."""
        k = len(self.labels)
        place = {label: i for i, label in enumerate(self.labels)}
        said = np.array([place[one.prediction.label] for one in self.judged])
        one_hot = np.eye(k, dtype=bool)
        return classwise(Counts(self.rows, self.probabilities, one_hot[self.truth], one_hot[said]))

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

    def calibration(self, temperature: float) -> Calibration:
        """Return how honest the probabilities are, given the temperature that they were answered with."""
        with np.errstate(divide="ignore"):
            logits = temperature * np.log(np.maximum(self.probabilities, 1e-300))
        plain = np.exp(logits - logits.max(axis=1, keepdims=True))
        before = (plain / plain.sum(axis=1, keepdims=True)).max(axis=1)
        hits = np.array([one.right for one in self.judged])
        return calibration(before, self.probabilities.max(axis=1), temperature, hits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        table = self.per_class()
        for label, part in zip(self.labels, self.classwise.parts, strict=True):
            table[label] |= part.to_dict()
        top, without = self.top(), self.without_twins
        means = {name: found.to_dict() for name, found in self.classwise.means.items()}
        means["balanced_accuracy"] = means.pop("recall")
        return {
            "pictures": len(self.judged),
            "accuracy": self.accuracy.to_dict(),
            **({"top5": top.to_dict()} if top else {}),
            **means,
            **({"without_twins": without.to_dict()} if without else {}),
            **({"twins": twins} if (twins := self._twins()) else {}),
            "per_class": table,
            "confusion": {"labels": list(self.labels), "counts": self.matrix().tolist()},
        }

    def _twins(self) -> int:
        return sum(one.row.id in self.leaked for one in self.judged)


def score(predictor: Predictor, manifest: Manifest, split: str) -> Scores:
    """Ask the model about every kept picture of a split, through the one path that users' pictures take.

    Raises:
        DataError: a picture can no longer be read, or the split is empty.
        UnknownNameError: a picture's class is none of the model's.
    """
    leaked = leaks(manifest) if split == TEST else ()
    return score_rows(predictor, manifest, rows_of(manifest, split), leaked)


def score_rows(
    predictor: Predictor,
    manifest: Manifest,
    rows: Sequence[Row],
    leaked: Sequence[str] = (),
    point: Point | None = None,
) -> Scores:
    """Ask the model about some rows of a manifest; `leaked` names those with a twin in training."""
    asked = ask(predictor, rows, manifest.root, point)
    asked.targets(predictor)  # a class that the model does not know is named here
    judged = tuple(Judged(row, one) for row, one in zip(asked.rows, asked.predictions, strict=True))
    return Scores(judged, predictor.labels, frozenset(leaked))


def measure(predictor: Predictor, manifest: Manifest, split: str) -> dict[str, float]:
    """Return the task's own scores on a split, whatever the task predicts.

    Raises:
        DataError: a picture can no longer be read, or the split is empty.
    """
    asked = ask(predictor, rows_of(manifest, split), manifest.root)
    metrics = predictor.task.metrics()
    metrics.update(asked.output, asked.targets(predictor))
    return metrics.compute()
