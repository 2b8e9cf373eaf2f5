"""Scores a trained model again, on its own test pictures or on new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import write_text
from vitrail.data.doctor import Progress
from vitrail.data.names import count
from vitrail.evaluate.fresh import fresh, learnt_by, present
from vitrail.evaluate.labels import score_label_rows
from vitrail.evaluate.report import environment
from vitrail.evaluate.scores import score_rows
from vitrail.evaluate.words import verdict, verdict_of_labels
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.models.create import count_params
from vitrail.reports.page import page_of_new
from vitrail.reports.write import Found, tested
from vitrail.runs.folder import Run, open_run
from vitrail.tasks.classify.targets import labels_of
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel


def evaluate_run(model: str, device: str = "auto") -> dict[str, Any]:
    """Score a run on its own test split once more.

    Raises:
        RunError: `model` is a file, which knows no pictures, or predicts no classes.
        DataError: the pictures are gone.
    """
    refuse_exported(Path(model))
    if not Path(model).is_dir():
        raise RunError(f"{model} alone knows no test pictures. Name some: vitrail eval {model} FOLDER")
    run = open_run(model)
    if run.recipe().training.tune == "draft":
        return _drafted(run)
    predictor = _classifier(model, device)
    manifest = present(run.manifest(run.root()))
    return _report(predictor, tested(predictor, manifest), manifest.counts(predictor.task)) | {"notes": []}


def _drafted(run: Run) -> dict[str, Any]:
    """Return the score by folds that a draft's report holds: its model learnt from all its pictures."""
    report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
    if "calibration" not in report:
        raise RunError(
            f"{run.folder} was drafted by an older vitrail and keeps no calibration. Draft it again, or name new "
            f"pictures: vitrail eval {run.folder} FOLDER"
        )
    note = "A draft learns from all its pictures. This is its score by folds, as counted when it was made."
    return {**report, "notes": [note]}


def evaluate_on(
    model: str,
    source: str,
    *,
    html: str | None = None,
    layout: str = "auto",
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model on new pictures whose classes have the names of its own; `html` also writes a page.

    Raises:
        DataError: a class that the model does not know, several labels where it knows one, or nothing to score.
    """
    predictor = _classifier(model, device)
    new = fresh(source, predictor.task, learnt_by(model), layout=layout, progress=progress)
    if isinstance(predictor.task, MultiLabel):
        several = score_label_rows(predictor, new.manifest, new.rows, new.known)
        told = several.calibration()
        found = Found(several, told, verdict_of_labels(several, told, new.called))
    else:
        mixed = next((row for row in new.unusable if len(labels_of(row)) > 1), None)
        if mixed is not None:
            raise DataError(
                f"{mixed.id} has {count(len(labels_of(mixed)), 'label')}, and the model knows one class a picture. "
                "Leave such pictures out, or train a model on pictures with several labels."
            )
        single = score_rows(predictor, new.manifest, new.rows, new.known)
        told = single.calibration(predictor.task.settings.temperature)
        found = Found(single, told, verdict(single, told, new.called))
    report = _report(predictor, found, {}) | {"notes": list(new.notes)}
    if html:
        write_text(Path(html), page_of_new(new, predictor, found.scores, report))
    return report


def _classifier(model: str, device: str) -> Predictor:
    predictor = Predictor(model, device)
    if not isinstance(predictor.task, Classify | MultiLabel):
        raise RunError(
            f"{model} predicts no classes ({predictor.task.name}). Its scores stand in the report of its run."
        )
    return predictor


def _report(predictor: Predictor, found: Found, splits: dict[str, dict[str, int]]) -> dict[str, Any]:
    header = predictor.header
    return {
        "model": header.name,
        "weights": header.weights,
        "licence": header.licence,
        "parameters": count_params(predictor.network),
        "data": {"splits": splits},
        **found.to_dict(),
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
    }
