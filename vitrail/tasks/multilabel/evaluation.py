"""Evaluation of multi-label classification: mean average precision, scores of each label, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row, group_key
from vitrail.metrics.calibration import Calibration, calibration
from vitrail.metrics.intervals import Interval, of_groups
from vitrail.metrics.per_class import Counts, PerClass, per_class, recall_of
from vitrail.metrics.ranking import mean_average_precision, ranking
from vitrail.metrics.score_threshold import best_threshold
from vitrail.metrics.temperature import fit_label_temperature
from vitrail.tasks.classify.evaluation import (
    galleries,
    limits,
    page_cells,
    scored_cells,
    scored_columns,
    told_numbers,
    without_twins,
)
from vitrail.tasks.resampling import resampling_of, told, warnings
from vitrail.tasks.result import (
    Column,
    Gathered,
    Number,
    Reliability,
    Result,
    Scope,
    Section,
    Shot,
    Table,
    TableSection,
)

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def multi_hot(targets: Sequence[Sequence[int]], labels: int) -> Tensor:
    """Return one row per image with 1 at its labels: float32 (b, k)."""
    rows = torch.zeros(len(targets), labels)
    for row, places in zip(rows, targets, strict=True):
        row[list(places)] = 1.0
    return rows


class LabelEvaluation:
    """Mean average precision and mean cross entropy during training; all scores of report.json afterwards."""

    main, unit = "map", "%"
    quick_headline = True

    def __init__(self, labels: Sequence[str], temperature: float, thresholds: Sequence[float]) -> None:
        self.labels, self.temperature, self.thresholds = tuple(labels), temperature, tuple(thresholds)
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Sequence[int]],
        at: Sequence[Geometry],
    ) -> None:
        """Add logits (b, k) and the label indices of each image."""
        logits = output["logits"]
        truth = multi_hot(truths, len(self.labels))
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1)
        probabilities = (logits / self.temperature).sigmoid().double().numpy()
        places = np.empty(len(truths), dtype=object)
        places[:] = [tuple(one) for one in truths]
        arrays = {
            "logits": logits.numpy(),
            "truth": truth.bool().numpy(),
            "places": places,
            "loss": losses.double().numpy(),
            "probabilities": probabilities,
            "said": probabilities >= np.array(self.thresholds),
            "temperature": np.full(len(truths), self.temperature),
        }
        self.kept.add(rows, arrays)

    def merge(self, other: LabelEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    def scores(self) -> dict[str, float]:
        """Return mAP, loss and the number of images."""
        if not len(self.kept):
            return {"map": 0.0, "loss": float("nan"), "pictures": 0}
        precision = mean_average_precision(self.kept["logits"].astype(np.float64), self.truth)
        return {"map": precision, "loss": float(np.mean(self.kept["loss"])), "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature and the thresholds fitted on these predictions."""
        logits = self.kept["logits"].astype(np.float64)
        temperature = fit_label_temperature(logits, self.truth)
        probabilities = 1 / (1 + np.exp(-logits / temperature))
        thresholds = [
            best_threshold(one, true, int(true.sum()))
            for one, true in zip(probabilities.T, self.truth.T, strict=True)
        ]
        return {"temperature": temperature, "thresholds": tuple(thresholds)}

    def per_image(self) -> Mapping[str, Array]:
        """Return for each image whether all labels are correct, the confidence and the loss."""
        return {"right": self.right(), "confidence": self.confidence(), "loss": self.kept["loss"]}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return mAP, exact-match accuracy and loss of a bootstrap sample."""
        logits, weights = self.kept["logits"].astype(np.float64), counts[None].astype(np.float64)
        present = np.flatnonzero((counts[:, None] * self.truth).any(axis=0))
        values = [
            float(ranking(logits[:, i], self.truth[:, i], weights).average_precision[0]) for i in present
        ]
        total = counts.sum()
        return {
            "map": float(np.mean(values)) if values else 0.0,
            "accuracy": float(counts @ self.right() / total),
            "loss": float(counts @ self.kept["loss"] / total),
        }

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    @property
    def truth(self) -> Flags:
        """Which labels each image has: (n, k)."""
        return self.kept["truth"]

    def scaled(self) -> Array:
        """Return the logits divided by the temperature: (n, k)."""
        return self.kept["logits"].astype(np.float64) / self.kept["temperature"][:, None]

    def right(self) -> Flags:
        """Return whether exactly the true labels of each image are predicted: (n,)."""
        right: Flags = (self.kept["said"] == self.truth).all(axis=1)
        return right

    def confidence(self) -> Array:
        """Return the probability of the most probable predicted label; without one, of the most probable label."""
        p, predicted = self.kept["probabilities"], self.kept["said"]
        some = predicted.any(axis=1, keepdims=True)
        best: Array = np.where(predicted | ~some, p, -1.0).max(axis=1)
        return best

    def headline(self) -> Number:
        """Return exact-match accuracy with its interval, which is cheap to compute at every operating point."""
        groups = [group_key(row) for row in self.rows]
        return Number.of(of_groups(self.right().tolist(), groups).to_dict(), name="right")

    def calibration(self, temperature: float | None = None) -> Calibration:
        """Return the calibration over all labels, each a yes or a no.

        `temperature` is the one to report if several temperatures were used (folds of a draft).
        """
        logits = self.kept["logits"].astype(np.float64)
        before, after = (1 / (1 + np.exp(-one)) for one in (logits, self.scaled()))
        reported = self.temperature if temperature is None else temperature
        return calibration(before.ravel(), after.ravel(), reported, self.truth.ravel())

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports contain."""
        return self.calibrated(self.calibration(), scope)

    def calibrated(
        self, calibration: Calibration, scope: Scope, fitted_on: str = Reliability.fitted_on
    ) -> Result:
        """Return the result with this calibration; `fitted_on` names the data that its temperature was fitted on."""
        scores = LabelScores(self, scope.leaked)
        details = {"test": scores.to_dict(), "calibration": calibration.to_dict()}
        result = from_details(details, scores.verdict(calibration, scope.called), fitted_on)
        sections = [*result.sections]
        places = dict(zip((row.id for row in self.rows), self.kept["places"], strict=True))
        sections[1:1] = galleries(self.shots(), lambda shot: places[shot.id])
        return result._replace(sections=tuple(sections))

    def shots(self) -> list[Shot]:
        """Return all images as pages show them, in order."""
        order = np.argsort(-self.kept["probabilities"], axis=1, kind="stable")
        shots = []
        for i, (row, confidence, correct) in enumerate(
            zip(self.rows, self.confidence().tolist(), self.right().tolist(), strict=True)
        ):
            truth = ", ".join(self.labels[place] for place in self.kept["places"][i])
            answer = ", ".join(self.labels[place] for place in order[i] if self.kept["said"][i, place])
            shots.append(Shot(row.id, truth or "nothing", answer or "nothing", confidence, correct))
        return shots


class LabelScores:
    """The scores of an evaluation with their intervals, as data and as a sentence."""

    def __init__(self, evaluation: LabelEvaluation, leaked: frozenset[str]) -> None:
        self.labels, self.rows = evaluation.labels, evaluation.rows
        self.truth, self.said, self.right = evaluation.truth, evaluation.kept["said"], evaluation.right()
        self.groups = [group_key(row) for row in self.rows]
        self.leaked = np.array([row.id in leaked for row in self.rows], dtype=bool)
        self.accuracy: Interval = of_groups(self.right.tolist(), self.groups)
        self.without_twins = without_twins(self.right, self.groups, self.leaked)
        probabilities = 1 / (1 + np.exp(-evaluation.scaled()))
        self.counts = Counts(self.groups, probabilities, self.truth, self.said)
        self.classwise: PerClass = per_class(self.counts)
        self.resampling = resampling_of(self.rows, dict(zip(self.labels, self.truth.T, strict=True)))

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Return for each label its images, recall with interval, precision, F1, AUROC, average precision."""
        table = {}
        for i, (label, part) in enumerate(zip(self.labels, self.classwise.parts, strict=True)):
            images = int(self.truth[:, i].sum())
            recall = recall_of(self.counts, i)
            table[label] = {"pictures": images, **recall.to_dict(), "taken_for": None, **part.to_dict()}
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        without, twins = self.without_twins, int(self.leaked.sum())
        return {
            "pictures": len(self.rows),
            "accuracy": self.accuracy.to_dict(),
            **{name: score.to_dict() for name, score in self.classwise.means.items()},
            **({"resampling": self.resampling} if self.resampling else {}),
            **({"without_twins": without.to_dict()} if without else {}),
            **({"twins": twins} if twins else {}),
            "per_class": self.per_class(),
        }

    def verdict(self, calibration: Calibration, called: str) -> str:
        """Return one sentence with the main scores of a multi-label model; `called` names the images."""
        mean = self.classwise.means["map"]
        span = f", {100 * mean.low:.1f} – {100 * mean.high:.1f}" if mean.low is not None else ""
        score = f"mean average precision {_share(mean.value)}{span}, on {len(self.rows):,} {called}"
        parts = [score, f"all labels right on {self.accuracy}"]
        if self.without_twins:
            parts.append(f"{self.without_twins} without those that have a duplicate in training")
        entries = {label: row for label, row in self.per_class().items() if row["pictures"]}
        if entries:
            weak = min(entries, key=lambda label: entries[label]["f1"]["value"])
            parts.append(f"weakest: {weak}, F1 {_share(entries[weak]['f1']['value'])}")
        return "; ".join([*parts, calibration.words(), *warnings(self.resampling)]) + "."


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def from_details(details: Mapping[str, Any], verdict: str, fitted_on: str = Reliability.fitted_on) -> Result:
    """Return the result that report.json contains: everything except the images."""
    test = details["test"]
    sections: tuple[Section, ...] = (
        TableSection("Label by label", _page_table(test), " ".join([_NOTE, *told(test)])),
        Reliability("Calibration", details["calibration"], fitted_on),
        limits(test),
    )
    return Result("map", numbers(details), verdict, (_table(test),), sections, details)


_NOTE = (
    "“Found” (recall): the share of the images with this label that got it. Precision: the share of the answers with "
    "this label that are right. report.json contains all intervals."
)


def numbers(details: Mapping[str, Any]) -> dict[str, Number]:
    """Return the overall scores, for tables and pages."""
    named = {
        "accuracy": ("right", "all labels right"),
        "map": ("mAP", "mean average precision"),
        "f1": ("F1, mean", "F1, mean over classes"),
        "auroc": ("AUROC, mean", ""),
    }
    return told_numbers(details, named)


def _table(test: Mapping[str, Any]) -> Table:
    rows = [(label, row["pictures"], *scored_cells(row), "") for label, row in test["per_class"].items()]
    return Table((*scored_columns("found"), Column("taken for")), tuple(rows))


def _page_table(test: Mapping[str, Any]) -> Table:
    rows = [
        (
            label,
            row["pictures"],
            *page_cells(row),
            Number.of(row["average_precision"]) if row["pictures"] else Number(None),
        )
        for label, row in test["per_class"].items()
    ]
    return Table((*scored_columns("found"), Column("average precision", right=True, card="")), tuple(rows))
