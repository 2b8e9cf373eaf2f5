"""Linear probe of single-label classification: multinomial logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vitrail.data.labels import join_labels
from vitrail.data.manifest import group_key
from vitrail.layers.heads import DistilledHead
from vitrail.metrics import label_quality
from vitrail.metrics.calibration import calibration
from vitrail.tasks.abstention import Abstention
from vitrail.tasks.classify.abstention_report import abstention_details
from vitrail.tasks.classify.evaluation import ClassEvaluation, from_details
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

NEVER = -30.0
"""The logit of a class without training images: the class is never predicted."""


def last_layer(head: nn.Module) -> nn.Linear | None:
    """Return the layer of a head that reads the pooled features; a head with two tokens has none."""
    if isinstance(head, DistilledHead):
        return None
    linear = head.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    return linear


class ClassProbe:
    """Linear probe whose `truth` is the class index of each image: (n,)."""

    def __init__(self, labels: Sequence[str], temperature: float = 1.0) -> None:
        self.labels, self.temperature = tuple(labels), temperature

    def truths(self, targets: Sequence[int]) -> Whole:
        """Return the class indices: (n,)."""
        return np.array(targets)

    def layer(self, head: nn.Module) -> nn.Linear | None:
        return last_layer(head)

    def regressions(self, scaled: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
        """Yield one multinomial regression per regularisation strength."""
        model, present, classes = regression(), np.unique(truth), len(self.labels)
        for strength in strengths:
            weight = np.zeros((classes, scaled.shape[1]), dtype=np.float32)
            bias = np.full(classes, NEVER, dtype=np.float32)
            if len(present) == 1:
                bias[present] = 0.0
            else:
                fit_regression(model, strength, scaled, truth)
                weight[present], bias[present] = _rows(model.coef_), _rows(model.intercept_)
            yield Linear(weight, bias, strength)

    def strata(self, truth: Whole) -> Whole:
        return truth

    def worth(self, logits: Vectors, truth: Whole) -> float:
        """Return the accuracy."""
        return float((logits.argmax(1) == truth).mean())

    def share(self, logits: Vectors, truth: Whole) -> float:
        """Return the accuracy."""
        return self.worth(logits, truth)

    def wrong(self, logits: Vectors, truth: Whole) -> NDArray[np.float64]:
        """Return 1 for an image whose likeliest class is not its own: (n,)."""
        found: NDArray[np.float64] = (logits.argmax(1) != truth).astype(np.float64)
        return found

    def result(self, evaluation: ClassEvaluation, scope: Scope) -> Result:
        """Return the result, calibrated with the temperature of each fold."""
        from scipy.special import softmax  # slow to import, and no prediction needs it

        logits = evaluation.kept["logits"].astype(np.float64)
        scaled = logits / evaluation.kept["temperature"][:, None]
        before, after = softmax(logits, axis=1).max(axis=1), softmax(scaled, axis=1).max(axis=1)
        calibrated = calibration(before, after, self.temperature, evaluation.right())
        return evaluation.calibrated(calibrated, scope, OTHER_HEADS)

    def with_abstention(self, result: Result, abstention: Abstention) -> Result:
        """Return the result with the figures of "none of these" and the promise of label sets."""
        details = {**result.details, "abstention": abstention_details(abstention, self.labels)}
        *sections, _ = result.sections
        added = from_details(details, result.verdict).sections[2:]
        return result._replace(sections=(*sections, *added), details=details)

    def reopen(self, report: Mapping[str, Any]) -> Result:
        """Return the result that the report.json of a draft contains."""
        kept = ("test", "calibration", "abstention")
        return from_details(
            {key: report[key] for key in kept if key in report}, report["verdict"], OTHER_HEADS
        )

    def doubts(self, evaluation: ClassEvaluation) -> list[Doubt]:
        """Return the probable label errors, the most probable first.

        Assume that two labels in a hundred are wrong (`NOISE`, ε), spread evenly over the other k − 1 classes. A head
        trained on such labels gives class c the probability p_c = (1 − ε) t_c + ε / (k − 1) (1 − t_c), where t_c is
        the true probability. By Bayes, the label y of an image that looks like j is wrong with odds t_j ε / (k − 1)
        to t_y (1 − ε). The probabilities are calibrated.
        """
        stray, errors = NOISE / (len(self.labels) - 1), []
        per_image = evaluation.per_image()
        for row, shot, own, best in zip(
            evaluation.rows,
            evaluation.shots(),
            per_image["probability"].tolist(),
            per_image["confidence"].tolist(),
            strict=True,
        ):
            true_own, true_other = (max(0.0, p - stray) for p in (own, best))
            if true_other * stray > true_own * (1 - NOISE):
                errors.append((own / best, Doubt(row, shot.truth, shot.truth, shot.answer, best)))
        return [error for _, error in sorted(errors, key=lambda pair: pair[0])]

    def label_scores(self, evaluation: ClassEvaluation) -> list[LabelScore]:
        """Return for each image how well its class fits.

        A class is doubted if it is one of `doubts` and another class is as probable as it usually is for its own images
        (`label_quality.alternatives`): heads know a rare class badly, which is no reason to doubt all of its images.
        """
        p, truth = evaluation.probabilities(), evaluation.truth
        doubtful = {one.row.id for one in self.doubts(evaluation)}
        other, sure = label_quality.best_others(p, truth), label_quality.alternatives(p, truth)
        own, margin = label_quality.self_confidence(p, truth), label_quality.margins(p, truth)
        units: dict[int, set[str]] = {}
        for row, place in zip(evaluation.rows, truth.tolist(), strict=True):
            units.setdefault(place, set()).add(group_key(row))
        scores = []
        for i, row in enumerate(evaluation.rows):
            alone = len(units[int(truth[i])]) == 1
            doubted = not alone and row.id in doubtful and sure[i] != label_quality.NONE
            label, proposal = (join_labels([self.labels[at]]) for at in (truth[i], other[i]))
            note = ALONE if alone else ""
            scores.append(
                LabelScore(row, label, proposal, float(own[i]), float(margin[i]), bool(doubted), note)
            )
        return scores


def _rows(numbers: Vectors) -> Vectors:
    """Return one row per class: for two classes scikit-learn keeps only one row, the second against the first."""
    if len(numbers) > 1:
        return numbers
    halves: Vectors = (np.concatenate([-numbers, numbers]) / 2).astype(np.float32)
    return halves
