"""Counts a model's answers on pictures with any number of labels each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.split import leaks
from vitrail.evaluate.ask import Asked, ask, rows_of
from vitrail.evaluate.calibration import Calibration, calibration
from vitrail.evaluate.classwise import Classwise, Counts, classwise
from vitrail.evaluate.intervals import Interval, of_rows, wilson
from vitrail.evaluate.scores import Judged
from vitrail.infer.predictor import Predictor
from vitrail.layers.elastic import Point
from vitrail.tasks.multilabel.task import Labelled, MultiLabel


@dataclass(frozen=True)
class LabelJudged(Judged):
    """One picture, its labels and the answered labels."""

    @property
    def right(self) -> bool:
        """Whether exactly the true labels were answered."""
        return set(self.prediction.chosen) == set(self.row.labels)


@dataclass(frozen=True)
class LabelScores:
    """What a multi-label model got right on one split: `logits` and `truth` are (n, k)."""

    judged: tuple[LabelJudged, ...]
    labels: tuple[str, ...]
    logits: NDArray[np.float64]
    truth: NDArray[np.bool_]
    temperature: float
    leaked: frozenset[str] = frozenset()

    @property
    def accuracy(self) -> Interval:
        """Share of pictures whose labels are exactly right."""
        return self._exact(self.judged)

    @property
    def without_twins(self) -> Interval | None:
        """The same on pictures that have no twin in training; None where all or none are such."""
        own = [one for one in self.judged if one.row.id not in self.leaked]
        return None if len(own) in (0, len(self.judged)) else self._exact(own)

    @staticmethod
    def _exact(judged: Sequence[LabelJudged]) -> Interval:
        return of_rows([one.right for one in judged], [one.row for one in judged])

    @cached_property
    def classwise(self) -> Classwise:
        """Precision, F1, AUROC and average precision of each label, and their means."""
        return classwise(self._counts())

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Return for each label its pictures, recall with interval, precision, F1, AUROC, average precision."""
        counts = self._counts()
        table = {}
        for i, (label, part) in enumerate(zip(self.labels, self.classwise.parts, strict=True)):
            there = int(self.truth[:, i].sum())
            share = wilson(int((counts.truth[:, i] & counts.said[:, i]).sum()), there)
            table[label] = {"pictures": there, **share.to_dict(), "taken_for": None, **part.to_dict()}
        return table

    def calibration(self) -> Calibration:
        """Return how honest the probabilities of all labels are, each a yes or a no."""
        before, after = (1 / (1 + np.exp(-self.logits / t)) for t in (1.0, self.temperature))
        return calibration(before.ravel(), after.ravel(), self.temperature, self.truth.ravel())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        without = self.without_twins
        twins = sum(one.row.id in self.leaked for one in self.judged)
        return {
            "pictures": len(self.judged),
            "accuracy": self.accuracy.to_dict(),
            **{name: found.to_dict() for name, found in self.classwise.means.items()},
            **({"without_twins": without.to_dict()} if without else {}),
            **({"twins": twins} if twins else {}),
            "per_class": self.per_class(),
        }

    def _counts(self) -> Counts:
        said = np.array([[label in one.prediction.chosen for label in self.labels] for one in self.judged])
        rows = [one.row for one in self.judged]
        return Counts(rows, 1 / (1 + np.exp(-self.logits / self.temperature)), self.truth, said)


def score_labels(predictor: Predictor, manifest: Manifest, split: str) -> LabelScores:
    """Ask a multi-label model about every kept picture of a split."""
    leaked = leaks(manifest) if split == TEST else ()
    return score_label_rows(predictor, manifest, rows_of(manifest, split), leaked)


def score_label_rows(
    predictor: Predictor,
    manifest: Manifest,
    rows: Sequence[Row],
    leaked: Sequence[str] = (),
    point: Point | None = None,
) -> LabelScores:
    """Ask a multi-label model about some rows of a manifest; `leaked` names those with a twin in training."""
    task = predictor.task
    assert isinstance(task, MultiLabel)
    asked: Asked = ask(predictor, rows, manifest.root, point)
    truth = np.zeros((len(asked.rows), len(task.labels)), dtype=bool)
    for line, places in zip(truth, asked.targets(predictor), strict=True):
        line[list(places)] = True
    answers: Sequence[Labelled] = asked.predictions
    judged = tuple(LabelJudged(row, one) for row, one in zip(asked.rows, answers, strict=True))
    logits = asked.output["logits"].double().numpy()
    return LabelScores(judged, task.labels, logits, truth, task.settings.temperature, frozenset(leaked))
