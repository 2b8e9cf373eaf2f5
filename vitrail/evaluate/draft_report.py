"""What a draft is worth: its score by folds, the labels it doubts, what more pictures and a fine-tune would bring."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vitrail import plots
from vitrail.core.files import replace, write_json, write_text
from vitrail.data.manifest import Manifest
from vitrail.data.source import load
from vitrail.evaluate.report import card, environment
from vitrail.evaluate.scores import Judged, Scores
from vitrail.infer.predictor import Predictor
from vitrail.pages import render
from vitrail.runs.folder import Run

NOISE = 0.02
"""Share of wrong labels that is taken for granted when labels are doubted."""

SHOWN = 48
"""Doubtful labels on the page; the table beside it has them all."""


@dataclass(frozen=True)
class DraftScores:
    """Answers on pictures that the head had not seen, and the share right where it learnt from half as many."""

    scores: Scores
    half: float

    @property
    def gain(self) -> float:
        """What twice the pictures would add, if errors go on falling by the same factor (a power law)."""
        error, before = 1 - self.scores.accuracy.value, 1 - self.half
        if error <= 0 or before <= error:
            return 0.0
        return error - error * error / before


@dataclass(frozen=True)
class Outlook:
    """Seconds: of the draft, of its phases, and of a full fine-tune on this machine."""

    seconds: float
    phases: dict[str, float]
    full: float


def doubts(scores: Scores) -> list[Judged]:
    """Return the pictures whose label is more probably wrong than right, the most doubtful first.

    Let two labels in a hundred be wrong (`NOISE`, ε) and fall on the other k − 1 classes evenly. A head that learnt
    from such labels gives class c the probability p_c = (1 − ε) t_c + ε / (k − 1) (1 − t_c) where t_c is the true
    one. By Bayes, the label y of a picture that looks like j is wrong with odds t_j ε / (k − 1) to t_y (1 − ε).
    The probabilities are calibrated and come from a head that had not seen the picture.
    """
    stray = NOISE / (len(scores.labels) - 1)
    found = []
    for one in scores.judged:
        own = dict(one.prediction.top(len(scores.labels)))[one.row.label]
        true_own, true_other = (max(0.0, p - stray) for p in (own, one.prediction.probability))
        if true_other * stray > true_own * (1 - NOISE):
            found.append((own / one.prediction.probability, one))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def write_draft_report(run: Run, manifest: Manifest, found: DraftScores, outlook: Outlook) -> dict[str, Any]:
    """Write report.json, report.html, README.md and the doubts of a draft into its run."""
    doubtful = doubts(found.scores)
    predictor = Predictor(run.folder)
    report = {
        "finished": True,
        "draft": True,
        "model": predictor.header.name,
        "weights": predictor.header.weights,
        "licence": predictor.header.licence,
        "imgsz": list(predictor.preprocess.size),
        "seconds": round(outlook.seconds, 1),
        "phases": {name: round(seconds, 2) for name, seconds in outlook.phases.items()},
        "test": found.scores.to_dict(),
        "gain_from_twice": round(found.gain, 4),
        "half": round(found.half, 4),
        "doubts": len(doubtful),
        "full_seconds": round(outlook.full, 1),
        "verdict": verdict(found.scores),
        "data": {"states": manifest.states()},
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
    }
    write_json(run.report_path, report)
    write_doubts(run.folder / "doubts.csv", doubtful)
    shown = [(one, _picture(manifest, one)) for one in doubtful[:SHOWN]]
    values = {
        "report": report,
        "doubts": shown,
        "count": len(doubtful),
        "confusion": _confusion(found.scores),
    }
    write_text(run.folder / "report.html", render("draft.html", values))
    write_text(run.folder / "README.md", card(predictor, report))
    return report


def verdict(scores: Scores) -> str:
    """Say in one sentence how good a draft is."""
    said = (
        f"{scores.accuracy.value:.1%} right ({scores.accuracy.low:.1%} – {scores.accuracy.high:.1%}), each of "
        f"{len(scores.judged):,} pictures asked once, by a head that had not seen it"
    )
    weak = scores.weakest()
    if weak is None or weak[1]["value"] == 1.0:
        return said + "."
    return f"{said}; weakest: {weak[0]}, {weak[1]['value']:.1%}, mostly taken for {weak[1]['taken_for']}."


def write_doubts(path: Path, doubtful: Sequence[Judged]) -> None:
    """Write the doubtful pictures as a table: id, label, what it looks like, how sure."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "label", "looks_like", "probability"])
            for one in doubtful:
                answer = one.prediction
                writer.writerow([one.row.id, one.row.label, answer.label, f"{answer.probability:.4f}"])

    replace(path, write)


def _confusion(scores: Scores) -> str:
    return plots.data_uri(plots.confusion(scores.matrix(), scores.labels))


def _picture(manifest: Manifest, one: Judged) -> str:
    image = plots.shown(Image.fromarray(load(manifest.root, one.row.path).image), 128)
    image.thumbnail((224, 224))
    return plots.data_uri(image)
