"""Labels that are more probably wrong than right, by answers of a head that had not seen the picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vitrail.core.files import replace
from vitrail.data.manifest import Row
from vitrail.evaluate.labels import LabelScores
from vitrail.evaluate.scores import Scores
from vitrail.tasks.classify.targets import labels_of

NOISE = 0.02
"""Share of wrong labels that is taken for granted when labels are doubted."""


class Doubt(NamedTuple):
    """One doubtful label: what stands there, what the picture looks like, and how sure that answer is."""

    row: Row
    looks_like: str
    probability: float

    @property
    def label(self) -> str:
        """The label that stands there."""
        return ", ".join(labels_of(self.row)) or "nothing"


def doubts(scores: Scores | LabelScores) -> list[Doubt]:
    """Return the doubtful labels, the most doubtful first.

    Let two labels in a hundred be wrong (`NOISE`, ε) and fall on the other k − 1 classes evenly. A head that learnt
    from such labels gives class c the probability p_c = (1 − ε) t_c + ε / (k − 1) (1 − t_c) where t_c is the true
    one. By Bayes, the label y of a picture that looks like j is wrong with odds t_j ε / (k − 1) to t_y (1 − ε).
    The probabilities are calibrated. Of several labels each is such a question of its own, with k = 2.
    """
    found = _of_labels(scores) if isinstance(scores, LabelScores) else _of_classes(scores)
    return [doubt for _, doubt in sorted(found, key=lambda pair: pair[0])]


def _of_classes(scores: Scores) -> list[tuple[float, Doubt]]:
    stray = NOISE / (len(scores.labels) - 1)
    found = []
    for one in scores.judged:
        answer = one.prediction
        own = dict(answer.top(len(scores.labels)))[labels_of(one.row)[0]]
        true_own, true_other = (max(0.0, p - stray) for p in (own, answer.probability))
        if true_other * stray > true_own * (1 - NOISE):
            found.append((own / answer.probability, Doubt(one.row, answer.label, answer.probability)))
    return found


def _of_labels(scores: LabelScores) -> list[tuple[float, Doubt]]:
    found = []
    for one in scores.judged:
        for label, p in one.prediction.top(len(scores.labels)):
            there = label in labels_of(one.row)
            own = p if there else 1 - p
            true_own, true_other = (max(0.0, share - NOISE) for share in (own, 1 - own))
            if true_other * NOISE > true_own * (1 - NOISE):
                found.append((own, Doubt(one.row, f"{'no' if there else 'also'} {label}", 1 - own)))
    return found


def write_doubts(path: Path, doubtful: Sequence[Doubt]) -> None:
    """Write the doubtful labels as a table: id, label, what it looks like, how sure."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "label", "looks_like", "probability"])
            for one in doubtful:
                writer.writerow([one.row.id, one.row.target, one.looks_like, f"{one.probability:.4f}"])

    replace(path, write)
