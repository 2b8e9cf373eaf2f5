"""Writes what a run is worth: report.json for programs, report.html and the model card for people."""

from __future__ import annotations

from typing import Any

from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import TEST, Manifest
from vitrail.evaluate.collect import evaluate, rows_of, scope_of
from vitrail.evaluate.report import environment
from vitrail.infer.predictor import Predictor
from vitrail.models.create import count_params
from vitrail.reports.page import page
from vitrail.reports.points import pointed
from vitrail.reports.settle import settled
from vitrail.runs.card import card
from vitrail.runs.folder import Run
from vitrail.runs.recipe import Recipe
from vitrail.tasks.result import Result


def write_report(run: Run, manifest: Manifest, *, seconds: float, finished: bool) -> dict[str, Any]:
    """Score the run's model on its test split and write report.json, report.html and README.md into the run.

    First the task learns from the validation answers what it leaves to them (`settled`), and operating points are
    measured on them (`pointed`).
    """
    predictor = pointed(run, manifest, settled(run, manifest))
    report = about(run, manifest, predictor) | {"finished": finished, "seconds": round(seconds, 1)}
    result = tested(predictor, manifest)
    report |= result.to_dict()
    html = page(run, manifest, predictor, result, report)
    write_json(run.report_path, report)
    write_text(run.folder / "report.html", html)
    write_text(run.folder / "README.md", card(predictor.header, predictor.task, report, result))
    return report


def tested(predictor: Predictor, manifest: Manifest) -> Result:
    """Return what a model is worth on the test split of its run's own pictures."""
    evaluation = evaluate(predictor, rows_of(manifest, TEST), manifest.root)
    return evaluation.result(scope_of(manifest, TEST))


def splits(predictor: Predictor, manifest: Manifest) -> dict[str, dict[str, int]]:
    """Return split → class → pictures; where the task has no classes, all pictures under no name."""
    if predictor.labels:
        return manifest.counts()
    return {split: {"": len(manifest.rows(split))} for split in manifest.counts()}


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
        "data": {"splits": splits(predictor, manifest), "states": manifest.states()},
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
