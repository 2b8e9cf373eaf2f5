"""Evaluation of single-label classification: accuracy, scores of each class, calibration, worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from vitrail.metrics.temperature import fit_temperature
from vitrail.tasks.abstention import Abstention
from vitrail.tasks.classify.abstention_report import Scored, abstention_details, abstention_sections
from vitrail.tasks.resampling import resampling_of, told, warnings
from vitrail.tasks.result import (
    Column,
    Gallery,
    Gathered,
    Limits,
    Matrix,
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

SHOWN = 6
"""Images per row of a page: most confident mistakes, most and least confident correct predictions."""

FEW = 30
"""With fewer test images of a class, its score is only a rough estimate."""


def _sorted(scores: Array) -> list[float]:
    """Return scores in order, with six digits: a model file holds many of them."""
    return [float(f"{score:.6g}") for score in np.sort(scores).tolist()]


class ClassEvaluation:
    """Accuracy and mean cross entropy during training; all scores of report.json afterwards."""

    main, unit = "accuracy", "%"
    quick_headline = True

    def __init__(
        self, labels: Sequence[str], temperature: float = 1.0, abstention: Abstention | None = None
    ) -> None:
        self.labels, self.temperature, self.abstention = tuple(labels), temperature, abstention
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[int],
        at: Sequence[Geometry],
    ) -> None:
        """Add logits (b, k) and the indices of the true classes."""
        logits, truth = output["logits"], torch.as_tensor(list(truths))
        losses = F.cross_entropy(logits, truth, reduction="none")
        arrays = {
            "logits": logits.numpy(),
            "truth": truth.numpy(),
            "loss": losses.double().numpy(),
            "temperature": np.full(len(truth), self.temperature, dtype=np.float32),
        }
        if "novelty" in output:
            arrays["novelty"] = output["novelty"].numpy()
        self.kept.add(rows, arrays)

    def merge(self, other: ClassEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    def scores(self) -> dict[str, float]:
        """Return accuracy, loss and the number of images."""
        if not len(self.kept):
            return {"accuracy": 0.0, "loss": float("nan"), "pictures": 0}
        right = self.kept["logits"].argmax(axis=1) == self.kept["truth"]
        return {
            "accuracy": float(right.mean()),
            "loss": float(self.kept["loss"].mean()),
            "pictures": len(self.kept),
        }

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature that calibrates the probabilities."""
        return {"temperature": fit_temperature(self.kept["logits"].astype(np.float64), self.truth)}

    def per_image(self) -> Mapping[str, Array]:
        """Return for each image correctness, confidence, the probability of the true class and the loss."""
        own = self.probabilities()[np.arange(len(self.kept)), self.truth]
        return {
            "right": self.right(),
            "confidence": self.confidence(),
            "probability": own,
            "loss": self.kept["loss"],
        }

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return accuracy and loss of a bootstrap sample."""
        total = counts.sum()
        return {
            "accuracy": float(counts @ self.right() / total),
            "loss": float(counts @ self.kept["loss"] / total),
        }

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    @property
    def truth(self) -> NDArray[np.int64]:
        """The index of the true class of each image: (n,)."""
        return self.kept["truth"].astype(np.int64)

    def probabilities(self) -> Array:
        """Return the predicted probabilities, computed in float32 as the task computes them: (n, k)."""
        logits, temperatures = (torch.from_numpy(self.kept[name]) for name in ("logits", "temperature"))
        return (logits / temperatures[:, None]).softmax(dim=-1).double().numpy()

    def answers(self) -> NDArray[np.int64]:
        """Return the index of the predicted class of each image: (n,)."""
        indices: NDArray[np.int64] = self.probabilities().argmax(axis=1)
        return indices

    def confidence(self) -> Array:
        """Return the probability of the predicted class of each image: (n,)."""
        confidence: Array = self.probabilities().max(axis=1)
        return confidence

    def right(self) -> Flags:
        """Return whether the predicted class of each image is correct: (n,)."""
        correct: Flags = self.answers() == self.truth
        return correct

    def headline(self) -> Number:
        """Return accuracy with its interval, which is cheap to compute at every operating point."""
        groups = [group_key(row) for row in self.rows]
        return Number.of(of_groups(self.right().tolist(), groups).to_dict(), name="right")

    def calibration(self) -> Calibration:
        """Return the calibration at temperature 1 and at the model's temperature."""
        p = self.probabilities()
        logits = self.temperature * np.log(np.maximum(p, 1e-300))
        plain = np.exp(logits - logits.max(axis=1, keepdims=True))
        before = (plain / plain.sum(axis=1, keepdims=True)).max(axis=1)
        return calibration(before, p.max(axis=1), self.temperature, self.right())

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports contain."""
        return self.calibrated(self.calibration(), scope)

    def calibrated(
        self, calibration: Calibration, scope: Scope, fitted_on: str = Reliability.fitted_on
    ) -> Result:
        """Return the result with this calibration; `fitted_on` names the data that its temperature was fitted on."""
        scores = ClassScores(self, scope.leaked)
        details = {"test": scores.to_dict(), "calibration": calibration.to_dict()}
        if self.abstention is not None:
            details["abstention"] = abstention_details(self.abstention, self.labels, self._scored())
        result = from_details(details, scores.verdict(calibration, scope.called), fitted_on)
        sections = [*result.sections]
        sections[1:1] = [self._matrix(scores.matrix()), *self._galleries()]
        return result._replace(sections=tuple(sections))

    def shots(self) -> list[Shot]:
        """Return all images as pages show them, in order."""
        entries = zip(
            self.rows,
            self.truth.tolist(),
            self.answers().tolist(),
            self.confidence().tolist(),
            strict=True,
        )
        return [Shot(row.id, self.labels[t], self.labels[a], p, t == a) for row, t, a, p in entries]

    def _scored(self) -> Scored:
        """Return what label sets and "none of these" are measured on."""
        logits, temperatures = (torch.from_numpy(self.kept[name]) for name in ("logits", "temperature"))
        scores = -(logits / temperatures[:, None]).log_softmax(dim=-1).double().numpy()
        novelty = self.kept["novelty"] if "novelty" in self.kept.parts else None
        return Scored(scores, novelty, self.truth, [group_key(row) for row in self.rows])

    def limits(self, temperature: float) -> dict[str, Any]:
        """Return what "none of these" and label sets are decided by, from these images, as `Abstention` holds it."""
        logits = torch.from_numpy(self.kept["logits"]).double() / temperature
        own = -logits.log_softmax(dim=-1).numpy()[np.arange(len(self.kept)), self.truth]
        by_class = [own[self.truth == place] for place in range(len(self.labels))]
        limits: dict[str, Any] = {"label_scores": [_sorted(scores) for scores in by_class]}
        if "novelty" in self.kept.parts:
            limits["novelty"] = _sorted(self.kept["novelty"])
        return limits

    def _matrix(self, counts: NDArray[np.int64]) -> Matrix:
        cells: dict[tuple[int, int], list[Shot]] = {}
        pairs = zip(self.truth.tolist(), self.answers().tolist(), strict=True)
        for cell, shot in zip(pairs, self.shots(), strict=True):
            cells.setdefault(cell, []).append(shot)
        sorted_shots = {cell: surest_first(shots) for cell, shots in cells.items()}
        rows = tuple(tuple(row) for row in counts.tolist())
        return Matrix("Confusion matrix", self.labels, rows, sorted_shots)

    def _galleries(self) -> list[Gallery]:
        return galleries(self.shots(), lambda shot: shot.truth)


class ClassScores:
    """The scores of an evaluation with their intervals, as data and as a sentence."""

    def __init__(self, evaluation: ClassEvaluation, leaked: frozenset[str]) -> None:
        self.labels, self.rows = evaluation.labels, evaluation.rows
        self.truth, self.probabilities = evaluation.truth, evaluation.probabilities()
        self.answers = self.probabilities.argmax(axis=1)
        self.right: Flags = self.answers == self.truth
        self.groups = [group_key(row) for row in self.rows]
        self.leaked = np.array([row.id in leaked for row in self.rows], dtype=bool)
        self.accuracy = of_groups(self.right.tolist(), self.groups)
        self.without_twins = without_twins(self.right, self.groups, self.leaked)
        one_hot = np.eye(len(self.labels), dtype=bool)
        self.counts = Counts(self.groups, self.probabilities, one_hot[self.truth], one_hot[self.answers])
        self.classwise: PerClass = per_class(self.counts)
        shown = dict(zip(self.labels, self.counts.truth.T, strict=True))
        self.resampling = resampling_of(self.rows, shown)

    def top(self, count: int = 5) -> Interval | None:
        """Return top-`count` accuracy; None if there are not more classes than that."""
        if len(self.labels) <= count:
            return None
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return of_groups((best == self.truth[:, None]).any(axis=1).tolist(), self.groups)

    def matrix(self) -> NDArray[np.int64]:
        """Return counts (k, k): rows are true classes, columns are predictions."""
        counts = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(counts, (self.truth, self.answers), 1)
        return counts

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Return for each class its images, its recall with interval, and its most frequent wrong prediction."""
        matrix = self.matrix()
        table = {}
        for i, label in enumerate(self.labels):
            wrong = matrix[i].copy()
            wrong[i] = 0
            taken = self.labels[int(wrong.argmax())] if wrong.any() else None
            share = recall_of(self.counts, i)
            table[label] = {"pictures": int(matrix[i].sum()), **share.to_dict(), "taken_for": taken}
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        table = self.per_class()
        for label, part in zip(self.labels, self.classwise.parts, strict=True):
            table[label] |= part.to_dict()
        top, without, twins = self.top(), self.without_twins, int(self.leaked.sum())
        means = {name: score.to_dict() for name, score in self.classwise.means.items()}
        means["balanced_accuracy"] = means.pop("recall")
        return {
            "pictures": len(self.rows),
            "accuracy": self.accuracy.to_dict(),
            **({"top5": top.to_dict()} if top else {}),
            **means,
            "kappa": {**self.classwise.kappa.to_dict(), "unit": ""},
            **({"resampling": self.resampling} if self.resampling else {}),
            **({"without_twins": without.to_dict()} if without else {}),
            **({"twins": twins} if twins else {}),
            "per_class": table,
            "confusion": {"labels": list(self.labels), "counts": self.matrix().tolist()},
        }

    def verdict(self, calibration: Calibration | None, called: str) -> str:
        """Return one sentence with the main scores; `called` names the images."""
        share = self.accuracy
        span = f"{100 * share.low:.1f} – {100 * share.high:.1f}"
        parts = [f"{100 * share.value:.1f} % right, {span}, on {len(self.rows):,} {called}"]
        if self.without_twins:
            parts.append(f"{self.without_twins} without those that have a duplicate in training")
        entries = [(label, row) for label, row in self.per_class().items() if row["pictures"]]
        label, weak = min(entries, key=lambda item: item[1]["value"], default=("", None))
        if weak is not None and weak["value"] < 1.0:
            parts.append(
                f"weakest: {label}, {100 * weak['value']:.1f} %, mostly taken for {weak['taken_for']}"
            )
        if calibration is not None:
            parts.append(calibration.words())
        return "; ".join([*parts, *warnings(self.resampling)]) + "."


def without_twins(right: Flags, groups: Sequence[str], leaked: Flags) -> Interval | None:
    """Return accuracy on the images without a duplicate in training; None if those are all or none."""
    own = np.flatnonzero(~leaked).tolist()
    if len(own) in (0, len(right)):
        return None
    return of_groups(right[own].tolist(), [groups[i] for i in own])


def surest_first(shots: Sequence[Shot]) -> list[Shot]:
    """Return images in order of confidence, the most confident first."""
    return sorted(shots, key=lambda shot: -(shot.confidence or 0.0))


def galleries(shots: Sequence[Shot], kind: Callable[[Shot], object]) -> list[Gallery]:
    """Return galleries: the most confident mistakes, the most confident correct prediction of each kind, and the least.

    `kind` groups the correct predictions, by class for example.
    """
    ordered = surest_first(shots)
    wrong = [shot for shot in ordered if not shot.right]
    correct = [shot for shot in ordered if shot.right]
    confident = surest_first(list({kind(shot): shot for shot in reversed(correct)}.values()))
    used = {shot.id for shot in confident[:SHOWN]}
    unsure = [shot for shot in correct[::-1] if shot.id not in used]
    rows = (
        (
            "Most confident mistakes",
            "Check their labels first: confident mistakes are often label errors.",
            wrong,
        ),
        ("Confident and right", "The most confident right answer of each class.", confident),
        ("Right, but not confident", "More images like these would help most.", unsure),
    )
    return [Gallery(heading, hint, tuple(images[:SHOWN])) for heading, hint, images in rows if images]


def from_details(details: Mapping[str, Any], verdict: str, fitted_on: str = Reliability.fitted_on) -> Result:
    """Return the result that report.json contains: everything except the images."""
    test = details["test"]
    sections: tuple[Section, ...] = (
        TableSection("Class by class", _page_table(test), _note(test)),
        Reliability("Calibration", details["calibration"], fitted_on),
        *(abstention_sections(details["abstention"]) if "abstention" in details else ()),
        limits(test, noticing=bool(details.get("abstention", {}).get("distances"))),
    )
    return Result("accuracy", numbers(details), verdict, (_table(test),), sections, details)


_NOTE = (
    "“Right” (recall): the share of a class's images that got this class. Precision: the share of the answers of this "
    "class that are right. report.json contains all intervals."
)


def _note(test: Mapping[str, Any]) -> str:
    """Return what stands below the table of classes: how to read it, kappa, and what intervals resample."""
    lines = [_NOTE]
    if (known := test.get("kappa")) and known["value"] is not None:  # older reports have none
        kappa = Number.of(known)
        span = f", {kappa.span()}" if kappa.low is not None else ""
        lines.append(f"Agreement beyond chance (Cohen's kappa): {kappa.text()}{span}.")
    return " ".join([*lines, *told(test)])


def numbers(details: Mapping[str, Any]) -> dict[str, Number]:
    """Return the overall scores, for tables and pages."""
    named = {
        "accuracy": ("right", "right"),
        "top5": ("top-5", "right among the five most probable"),
        "balanced_accuracy": ("mean over classes", "mean over classes"),
        "map": ("mAP", ""),
        "f1": ("F1, mean", "F1, mean over classes"),
        "auroc": ("AUROC, mean", ""),
        "kappa": ("kappa", ""),
    }
    return told_numbers(details, named)


def told_numbers(details: Mapping[str, Any], named: Mapping[str, tuple[str, str]]) -> dict[str, Number]:
    """Return the scores under their names in tables and pages; without duplicates and calibration error are last."""
    test = details["test"]
    duplicates = f"without the {test.get('twins', 0):,} that have a duplicate in training"
    scores = {
        key: Number.of(test[key], name=name, fact=fact)
        for key, (name, fact) in {**named, "without_twins": ("without duplicates", duplicates)}.items()
        if key in test
    }
    return {**scores, "calibration_error": honesty(details["calibration"])}


def honesty(calibration: Mapping[str, Any]) -> Number:
    """Return the calibration error with the text that pages show."""
    chance = f"{100 * calibration['ece_noise']:.1f} %"
    return Number(
        calibration["ece_after"], better="lower", fact=f"calibration error; {chance} expected by chance"
    )


def limits(test: Mapping[str, Any], noticing: bool = False) -> Limits:
    """Return the limits of a classifier, for the model card; `noticing`: it may answer "none of these"."""
    lines = ["It answers with one of these classes for every image. It was not tested on other images."]
    if noticing:
        lines = ["It may answer “none of these”, but misses images of other things: see None of these."]
    few = [name for name, row in test["per_class"].items() if row["pictures"] < FEW]
    if few:
        names = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        lines.append(f"Fewer than {FEW} test images, so the scores are rough estimates: {names}.")
    return Limits("", tuple(lines))


def scored_columns(recall: str) -> tuple[Column, ...]:
    """Return the columns of a table of classes; `recall` is the heading of the recall column."""
    return (
        Column("class"),
        Column("pictures", right=True),
        Column(recall, right=True, spread=True, card="right"),
        Column("precision", right=True),
        Column("F1", right=True),
        Column("AUROC", right=True),
    )


def scored_cells(row: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return recall, precision, F1 and AUROC of a class; only precision if the class has no images."""
    if not row["pictures"]:
        return Number(None), Number.of(row["precision"]), Number(None), Number(None)
    return Number.of(row), *(Number.of(row[name]) for name in ("precision", "f1", "auroc"))


def page_cells(row: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return the cells of `scored_cells` for a page, which states why a class without images has no scores."""
    if not row["pictures"]:
        return Number(None, why="no test images"), Number(None), Number(None), Number(None)
    return scored_cells(row)


def _table(test: Mapping[str, Any]) -> Table:
    rows = [
        (label, row["pictures"], *scored_cells(row), (row["taken_for"] or "") if row["pictures"] else "")
        for label, row in test["per_class"].items()
    ]
    return Table((*scored_columns("right"), Column("taken for")), tuple(rows))


def _page_table(test: Mapping[str, Any]) -> Table:
    rows = [
        (label, row["pictures"], *page_cells(row), row["taken_for"] or "")
        for label, row in test["per_class"].items()
    ]
    return Table((*scored_columns("right"), Column("mostly taken for", card="")), tuple(rows))
