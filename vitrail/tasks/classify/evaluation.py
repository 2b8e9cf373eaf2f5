"""How good answers of one class an image are: share right, scores of each class, calibration, the worst mistakes."""

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
from vitrail.metrics.intervals import Interval, of_groups, wilson
from vitrail.metrics.per_class import Counts, PerClass, per_class
from vitrail.metrics.temperature import temperature
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
"""Images of each kind in a row of a page: surest mistakes, surest right answers, right ones in doubt."""

FEW = 30
"""Test images of a class below which its score is hardly more than a hint."""


class ClassEvaluation:
    """Share of right answers and mean cross entropy while training; everything of report.json afterwards."""

    main, unit = "accuracy", "%"

    def __init__(self, labels: Sequence[str], temperature: float = 1.0) -> None:
        self.labels, self.temperature = tuple(labels), temperature
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[int],
        at: Sequence[Geometry],
    ) -> None:
        """Take in logits (b, k) and the places of the true classes."""
        logits, truth = output["logits"], torch.as_tensor(list(truths))
        losses = F.cross_entropy(logits, truth, reduction="none")
        arrays = {
            "logits": logits.numpy(),
            "truth": truth.numpy(),
            "loss": losses.double().numpy(),
            "temperature": np.full(len(truth), self.temperature, dtype=np.float32),
        }
        self.kept.add(rows, arrays)

    def merge(self, other: ClassEvaluation) -> None:
        """Take in another's images, in the order of their ids."""
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
        """Return the temperature that makes the probabilities honest."""
        return {"temperature": temperature(self.kept["logits"].astype(np.float64), self.truth)}

    def per_image(self) -> Mapping[str, Array]:
        """Return whether each image was answered rightly, how sure, the true class's probability, the loss."""
        own = self.probabilities()[np.arange(len(self.kept)), self.truth]
        return {
            "right": self.right(),
            "confidence": self.confidence(),
            "probability": own,
            "loss": self.kept["loss"],
        }

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return accuracy and loss of a resample."""
        total = counts.sum()
        return {
            "accuracy": float(counts @ self.right() / total),
            "loss": float(counts @ self.kept["loss"] / total),
        }

    @property
    def rows(self) -> list[Row]:
        """The images."""
        return self.kept.rows

    @property
    def truth(self) -> NDArray[np.int64]:
        """The place of the true class of each image: (n,)."""
        return self.kept["truth"].astype(np.int64)

    def probabilities(self) -> Array:
        """Return the probability of each class as it is answered, in float32 as by the task itself: (n, k)."""
        logits, heat = (torch.from_numpy(self.kept[name]) for name in ("logits", "temperature"))
        return (logits / heat[:, None]).softmax(dim=-1).double().numpy()

    def answers(self) -> NDArray[np.int64]:
        """Return the place of the likeliest class of each image: (n,)."""
        found: NDArray[np.int64] = self.probabilities().argmax(axis=1)
        return found

    def confidence(self) -> Array:
        """Return the probability of the likeliest class of each image: (n,)."""
        found: Array = self.probabilities().max(axis=1)
        return found

    def right(self) -> Flags:
        """Return whether the likeliest class of each image is the true one: (n,)."""
        found: Flags = self.answers() == self.truth
        return found

    def headline(self) -> Number:
        """Return the share right with its interval: what is cheap to ask at every operating point."""
        groups = [group_key(row) for row in self.rows]
        return Number.of(of_groups(self.right().tolist(), groups).to_dict(), name="right")

    def calibration(self) -> Calibration:
        """Return how honest the probabilities are, with temperature 1 and with the model's own."""
        p = self.probabilities()
        logits = self.temperature * np.log(np.maximum(p, 1e-300))
        plain = np.exp(logits - logits.max(axis=1, keepdims=True))
        before = (plain / plain.sum(axis=1, keepdims=True)).max(axis=1)
        return calibration(before, p.max(axis=1), self.temperature, self.right())

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports say."""
        return self.calibrated(self.calibration(), scope)

    def calibrated(self, honest: Calibration, scope: Scope, fitted_on: str = Reliability.fitted_on) -> Result:
        """Return the result with a calibration; `fitted_on` says what its temperature was learned from."""
        found = ClassScores(self, scope.leaked)
        details = {"test": found.to_dict(), "calibration": honest.to_dict()}
        plain = from_details(details, found.verdict(honest, scope.called), fitted_on)
        sections = [*plain.sections]
        sections[1:1] = [self._matrix(found.matrix()), *self._galleries()]
        return plain._replace(sections=tuple(sections))

    def shots(self) -> list[Shot]:
        """Return every image as pages show it, in order."""
        answered = zip(
            self.rows,
            self.truth.tolist(),
            self.answers().tolist(),
            self.confidence().tolist(),
            strict=True,
        )
        return [Shot(row.id, self.labels[t], self.labels[a], sure, t == a) for row, t, a, sure in answered]

    def _matrix(self, counts: NDArray[np.int64]) -> Matrix:
        held: dict[tuple[int, int], list[Shot]] = {}
        for at, shot in zip(
            zip(self.truth.tolist(), self.answers().tolist(), strict=True), self.shots(), strict=True
        ):
            held.setdefault(at, []).append(shot)
        sorted_shots = {at: surest_first(shots) for at, shots in held.items()}
        rows = tuple(tuple(row) for row in counts.tolist())
        return Matrix("What is taken for what", self.labels, rows, sorted_shots)

    def _galleries(self) -> list[Gallery]:
        return galleries(self.shots(), lambda shot: shot.truth)


class ClassScores:
    """The scores of an evaluation with their intervals, and in words."""

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
        self.classwise: PerClass = per_class(
            Counts(self.groups, self.probabilities, one_hot[self.truth], one_hot[self.answers])
        )

    def top(self, count: int = 5) -> Interval | None:
        """Return the share of images whose class is among the likeliest few; None with so few classes."""
        if len(self.labels) <= count:
            return None
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return of_groups((best == self.truth[:, None]).any(axis=1).tolist(), self.groups)

    def matrix(self) -> NDArray[np.int64]:
        """Return counts (k, k): true class down, answer across."""
        counts = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(counts, (self.truth, self.answers), 1)
        return counts

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Return for each class its images, recall with interval, and what it is mostly taken for."""
        matrix = self.matrix()
        table = {}
        for i, label in enumerate(self.labels):
            wrong = matrix[i].copy()
            wrong[i] = 0
            taken = self.labels[int(wrong.argmax())] if wrong.any() else None
            share = wilson(int(matrix[i, i]), int(matrix[i].sum()))
            table[label] = {"pictures": int(matrix[i].sum()), **share.to_dict(), "taken_for": taken}
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        table = self.per_class()
        for label, part in zip(self.labels, self.classwise.parts, strict=True):
            table[label] |= part.to_dict()
        top, without, twins = self.top(), self.without_twins, int(self.leaked.sum())
        means = {name: found.to_dict() for name, found in self.classwise.means.items()}
        means["balanced_accuracy"] = means.pop("recall")
        return {
            "pictures": len(self.rows),
            "accuracy": self.accuracy.to_dict(),
            **({"top5": top.to_dict()} if top else {}),
            **means,
            **({"without_twins": without.to_dict()} if without else {}),
            **({"twins": twins} if twins else {}),
            "per_class": table,
            "confusion": {"labels": list(self.labels), "counts": self.matrix().tolist()},
        }

    def verdict(self, honest: Calibration | None, called: str) -> str:
        """Say in one sentence how good a model is; `called` names the images."""
        share = self.accuracy
        span = f"{100 * share.low:.1f} – {100 * share.high:.1f}"
        parts = [f"{100 * share.value:.1f} % right, {span}, on {len(self.rows):,} {called}"]
        if self.without_twins:
            parts.append(f"{self.without_twins} without those that have a twin in training")
        seen = [(label, row) for label, row in self.per_class().items() if row["pictures"]]
        label, weak = min(seen, key=lambda item: item[1]["value"], default=("", None))
        if weak is not None and weak["value"] < 1.0:
            parts.append(
                f"weakest: {label}, {100 * weak['value']:.1f} %, mostly taken for {weak['taken_for']}"
            )
        if honest is not None:
            parts.append(honest.words())
        return "; ".join(parts) + "."


def without_twins(right: Flags, groups: Sequence[str], leaked: Flags) -> Interval | None:
    """Return the share right of images that have no twin in training; None where all or none are such."""
    own = np.flatnonzero(~leaked).tolist()
    if len(own) in (0, len(right)):
        return None
    return of_groups(right[own].tolist(), [groups[i] for i in own])


def surest_first(shots: Sequence[Shot]) -> list[Shot]:
    """Return images in order of confidence."""
    return sorted(shots, key=lambda shot: -(shot.confidence or 0.0))


def galleries(shots: Sequence[Shot], kind: Callable[[Shot], object]) -> list[Gallery]:
    """Return rows of images: the surest mistakes, the surest right answer of each kind, the right ones in doubt."""
    surest = surest_first(shots)
    wrong = [shot for shot in surest if not shot.right]
    right = [shot for shot in surest if shot.right]
    varied = surest_first(list({kind(shot): shot for shot in reversed(right)}.values()))
    shown = {shot.id for shot in varied[:SHOWN]}
    doubtful = [shot for shot in right[::-1] if shot.id not in shown]
    rows = (
        ("Its surest mistakes", "Look at their labels first: sure mistakes are often wrong labels.", wrong),
        ("Surely right", "The surest answer of each class.", varied),
        ("Right, but in doubt", "Images like these are worth collecting more of.", doubtful),
    )
    return [Gallery(heading, hint, tuple(found[:SHOWN])) for heading, hint, found in rows if found]


def from_details(details: Mapping[str, Any], verdict: str, fitted_on: str = Reliability.fitted_on) -> Result:
    """Return what report.json alone tells of one class an image: everything but the images."""
    test = details["test"]
    sections: tuple[Section, ...] = (
        TableSection("Class by class", _page_table(test), _NOTE),
        Reliability("Are its probabilities honest?", details["calibration"], fitted_on),
        limits(test),
    )
    return Result("accuracy", numbers(details), verdict, (_table(test),), sections, details)


_NOTE = (
    "“Right”: of the images of a class, the share that was answered so. Precision: of the answers, the share that "
    "was right. All intervals stand in report.json."
)


def numbers(details: Mapping[str, Any]) -> dict[str, Number]:
    """Return the scores of the whole, for tables and pages."""
    named = {
        "accuracy": ("right", "right"),
        "top5": ("among five", "among the five likeliest"),
        "balanced_accuracy": ("mean over classes", "mean over classes"),
        "map": ("mAP", ""),
        "f1": ("F1, mean", "F1, mean over classes"),
        "auroc": ("AUROC, mean", ""),
    }
    return told_numbers(details, named)


def told_numbers(details: Mapping[str, Any], named: Mapping[str, tuple[str, str]]) -> dict[str, Number]:
    """Return the scores by what tables and pages call them, those without twins and the calibration error last."""
    test = details["test"]
    twins = f"without the {test.get('twins', 0):,} that have a twin in training"
    found = {
        key: Number.of(test[key], name=name, fact=fact)
        for key, (name, fact) in {**named, "without_twins": ("without twins", twins)}.items()
        if key in test
    }
    return {**found, "calibration_error": honesty(details["calibration"])}


def honesty(told: Mapping[str, Any]) -> Number:
    """Return the calibration error as a page says it."""
    chance = f"{100 * told['ece_noise']:.1f} %"
    return Number(
        told["ece_after"], better="lower", fact=f"calibration error; chance alone would show {chance}"
    )


def limits(test: Mapping[str, Any]) -> Limits:
    """Return what a model of classes must not be trusted with."""
    lines = ["It answers with these classes whatever an image shows; it was not tested on anything else."]
    few = [name for name, row in test["per_class"].items() if row["pictures"] < FEW]
    if few:
        shown = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        lines.append(f"Fewer than {FEW} test images, so their scores are only a hint: {shown}.")
    return Limits("", tuple(lines))


def scored_columns(recall: str) -> tuple[Column, ...]:
    """Return the columns of a table of classes; `recall` is what the share found of each is called."""
    return (
        Column("class"),
        Column("pictures", right=True),
        Column(recall, right=True, spread=True, card="right"),
        Column("precision", right=True),
        Column("F1", right=True),
        Column("AUROC", right=True),
    )


def scored_cells(row: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return recall, precision, F1 and AUROC of a class; of one without images the precision alone."""
    if not row["pictures"]:
        return Number(None), Number.of(row["precision"]), Number(None), Number(None)
    return Number.of(row), *(Number.of(row[name]) for name in ("precision", "f1", "auroc"))


def page_cells(row: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return the same for a page, where a class without images says why it has no scores."""
    if not row["pictures"]:
        return Number(None, why="none in the test"), Number(None), Number(None), Number(None)
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
