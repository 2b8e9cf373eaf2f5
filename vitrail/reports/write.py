"""Writes what a run is worth: report.json for programs, report.html and the model card for people."""

from __future__ import annotations

from typing import Any, NamedTuple

from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import TEST, Manifest
from vitrail.evaluate.labels import LabelScores, score_labels
from vitrail.evaluate.report import card, environment
from vitrail.evaluate.scores import Scores, measure, score
from vitrail.evaluate.words import plain_verdict, verdict, verdict_of_labels
from vitrail.infer.predictor import Predictor
from vitrail.metrics.calibration import Calibration
from vitrail.models.create import count_params
from vitrail.reports.page import page
from vitrail.reports.plain import plain_page
from vitrail.reports.points import pointed
from vitrail.reports.settle import settled
from vitrail.runs.folder import Run
from vitrail.runs.recipe import Recipe
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel


class Found(NamedTuple):
    """Scores of pictures whose truth is known, how honest the probabilities are, and both in words."""

    scores: Scores | LabelScores
    calibration: Calibration
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        return {
            "verdict": self.verdict,
            "test": self.scores.to_dict(),
            "calibration": self.calibration.to_dict(),
        }


def write_report(run: Run, manifest: Manifest, *, seconds: float, finished: bool) -> dict[str, Any]:
    """Score the run's model on its test split and write report.json, report.html and README.md into the run.

    First the task learns from the validation answers what it leaves to them (`settled`), and operating points are
    measured on them (`pointed`).
    """
    predictor = pointed(run, manifest, settled(run, manifest))
    report = about(run, manifest, predictor) | {"finished": finished, "seconds": round(seconds, 1)}
    if isinstance(predictor.task, Classify | MultiLabel):
        found = tested(predictor, manifest)
        report |= found.to_dict()
        html = page(run, manifest, predictor, found.scores, report)
    else:
        plain = measure(predictor, manifest, TEST)
        report |= {"verdict": plain_verdict(plain, len(manifest.rows(TEST))), "test": plain}
        html = plain_page(run, report)
    write_json(run.report_path, report)
    write_text(run.folder / "report.html", html)
    write_text(run.folder / "README.md", card(predictor, report))
    return report


def tested(predictor: Predictor, manifest: Manifest) -> Found:
    """Score a classifier, of one class or of several labels a picture, on the test split of its own data."""
    if isinstance(predictor.task, MultiLabel):
        return told_of_labels(score_labels(predictor, manifest, TEST))
    return told(score(predictor, manifest, TEST), predictor.task.settings.temperature)


def told(scores: Scores, temperature: float) -> Found:
    """Put scores of one class a picture into words."""
    calibration = scores.calibration(temperature)
    return Found(scores, calibration, verdict(scores, calibration))


def told_of_labels(scores: LabelScores) -> Found:
    """Put scores of several labels a picture into words."""
    calibration = scores.calibration()
    return Found(scores, calibration, verdict_of_labels(scores, calibration))


def about(run: Run, manifest: Manifest, predictor: Predictor) -> dict[str, Any]:
    """Return what a report says beside the scores: the network, the data, the cost, how to make it again."""
    recipe, header = run.recipe(), predictor.header
    events = run.course()
    steps = [event for event in events if event["event"] == "step"]
    scored = [event for event in events if event["event"] == "score"]
    return {
        "model": header.name,
        "weights": header.weights,
        "licence": header.licence,
        "task": header.task["name"],
        "parameters": count_params(predictor.network),
        "data": {"splits": manifest.counts(), "states": manifest.states()},
        "cost": {
            "steps": len({event["step"] for event in steps}),
            "epochs": round(steps[-1]["epoch"], 2) if steps else 0.0,
            "best_epoch": next((e["epoch"] for e in reversed(scored) if e["better"]), None),
            "batch": recipe.training.batch,
            "precision": recipe.training.precision,
        },
        "reproduce": command(recipe, header.weights),
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
        **({"points": header.points} if header.points else {}),
    }


def command(recipe: Recipe, weights: str) -> str:
    """Return the command that makes a run again from its recipe.yaml; no folder of this machine is named in it.

    `weights` is the name under which the model file knows them: the recipe may hold a path.
    """
    words = [f"--recipe recipe.yaml --model {recipe.model.name} --weights {weights}"]
    words += [] if recipe.training.tune == "scratch" else [f"--tune {recipe.training.tune}"]
    words += ["--elastic"] if recipe.task.name.startswith("elastic") else []
    words += [f"--precision {recipe.training.precision}"] if recipe.training.precision != "auto" else []
    words += [f"--micro {recipe.training.micro}"] if recipe.training.micro else []
    words += [f"--val {recipe.data.val:g} --test {recipe.data.test:g} --seed {recipe.training.seed}"]
    return f"vitrail train PICTURES {' '.join(words)}"
