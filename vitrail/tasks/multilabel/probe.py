"""Linear probe of multi-label classification: one logistic regression per label on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vitrail.data.labels import join_labels
from vitrail.metrics.ranking import mean_average_precision
from vitrail.tasks.classify.probe import last_layer
from vitrail.tasks.multilabel.evaluation import LabelEvaluation, from_details, multi_hot
from vitrail.tasks.probe import (
    ALONE,
    NOISE,
    OTHER_HEADS,
    Doubt,
    LabelScore,
    Linear,
    Vectors,
    Whole,
    fit_regression,
    regression,
)
from vitrail.tasks.result import Result, Scope


class LabelProbe:
    """Linear probe whose `truth` is 0 or 1 for each label of each image: (n, k)."""

    def __init__(self, labels: Sequence[str], temperature: float = 1.0) -> None:
        self.labels, self.temperature = tuple(labels), temperature

    def truths(self, targets: Sequence[Sequence[int]]) -> Whole:
        """Return one row per image with 1 at its labels: (n, k)."""
        rows: Whole = multi_hot(targets, len(self.labels)).long().numpy()
        return rows

    def layer(self, head: nn.Module) -> nn.Linear | None:
        return last_layer(head)

    def regressions(self, scaled: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
        """Yield for each strength one layer, with one binary regression per label."""
        models = [regression() for _ in self.labels]
        for strength in strengths:
            weight = np.zeros((len(models), scaled.shape[1]), dtype=np.float32)
            positives = truth.sum(0)
            # If all images have the same value of a label, only its frequency can be fitted: the bias.
            bias = np.log((positives + 0.5) / (len(truth) - positives + 0.5)).astype(np.float32)
            for i in np.flatnonzero((positives > 0) & (positives < len(truth))):
                fit_regression(models[i], strength, scaled, truth[:, i])
                weight[i], bias[i] = models[i].coef_[0], models[i].intercept_[0]
            yield Linear(weight, bias, strength)

    def strata(self, truth: Whole) -> Whole:
        """Return the rarest label of each image; k if it has none."""
        rarity = np.where(truth > 0, truth.sum(0), len(truth) + 1)
        strata: Whole = np.where(truth.any(1), rarity.argmin(1), truth.shape[1])
        return strata

    def worth(self, logits: Vectors, truth: Whole) -> float:
        """Return the negative cross entropy."""
        return -float(np.logaddexp(0.0, np.where(truth > 0, -logits, logits)).mean())

    def share(self, logits: Vectors, truth: Whole) -> float:
        """Return the mean average precision."""
        return mean_average_precision(logits.astype(np.float64), truth.astype(bool))

    def wrong(self, logits: Vectors, truth: Whole) -> NDArray[np.float64]:
        """Return 1 for an image whose labels, those above one half, are not exactly its own: (n,)."""
        found: NDArray[np.float64] = ((logits > 0) != (truth > 0)).any(1).astype(np.float64)
        return found

    def result(self, evaluation: LabelEvaluation, scope: Scope) -> Result:
        """Return the result, with the temperature fitted on the predictions of all folds."""
        return evaluation.calibrated(evaluation.calibration(self.temperature), scope, OTHER_HEADS)

    def reopen(self, report: Mapping[str, Any]) -> Result:
        """Return the result that the report.json of a draft contains."""
        return from_details(
            {key: report[key] for key in ("test", "calibration")}, report["verdict"], OTHER_HEADS
        )

    def doubts(self, evaluation: LabelEvaluation) -> list[Doubt]:
        """Return the probable label errors, the most probable first; each label is a problem of two classes.

        `ClassProbe.doubts` explains the method.
        """
        errors = []
        probabilities, truth = evaluation.kept["probabilities"], evaluation.truth
        order = np.argsort(-probabilities, axis=1, kind="stable")
        for i, (row, shot) in enumerate(zip(evaluation.rows, evaluation.shots(), strict=True)):
            for place in order[i]:
                label, p, present = self.labels[place], float(probabilities[i, place]), truth[i, place]
                own = p if present else 1 - p
                true_own, true_other = (max(0.0, share - NOISE) for share in (own, 1 - own))
                if true_other * NOISE > true_own * (1 - NOISE):
                    looks_like = f"{'no' if present else 'also'} {label}"
                    cell = "|".join(self.labels[one] for one in evaluation.kept["places"][i])
                    errors.append((own, Doubt(row, shot.truth, cell, looks_like, 1 - own)))
        return [error for _, error in sorted(errors, key=lambda pair: pair[0])]

    def label_scores(self, evaluation: LabelEvaluation) -> list[LabelScore]:
        """Return for each image how well its labels fit: those of the one label that fits least.

        As for classes, it is doubted only if the other value (has it, or not) is as probable as usual for its images.
        """
        p, truth = evaluation.kept["probabilities"], evaluation.truth
        own = np.where(truth, p, 1 - p)
        present, absent = truth.sum(0), (~truth).sum(0)
        usual = [
            np.where(truth, p, 0).sum(0) / np.maximum(present, 1),
            np.where(truth, 0, 1 - p).sum(0) / np.maximum(absent, 1),
        ]
        doubtful = {one.row.id for one in self.doubts(evaluation)}
        scores = []
        for i, row in enumerate(evaluation.rows):
            at = int(own[i].argmin())
            confidence, alone = float(own[i, at]), bool(truth[i, at]) and present[at] == 1
            sure = 1 - confidence >= usual[int(truth[i, at])][at]
            flipped = truth[i].copy()
            flipped[at] = not flipped[at]
            label, proposal = (
                join_labels(name for name, has in zip(self.labels, one, strict=True) if has)
                for one in (truth[i], flipped)
            )
            doubted = row.id in doubtful and bool(sure) and not alone
            note = ALONE if alone else ""
            scores.append(LabelScore(row, label, proposal, confidence, 2 * confidence - 1, doubted, note))
        return scores
