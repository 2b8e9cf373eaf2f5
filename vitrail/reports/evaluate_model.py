"""Evaluate a trained model on its own test images or on new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import RunError
from vitrail.core.files import refuse_unwritable, write_text
from vitrail.core.text import command, reason
from vitrail.data.doctor import Progress
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.collect_answers import evaluate, result_of
from vitrail.evaluate.new_data import open_new_data, own_tests, training_rows
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.models.factory import count_params
from vitrail.reports.run_page import page_of_new
from vitrail.reports.run_report import tested
from vitrail.runs.run import Run, open_run
from vitrail.runs.versions import environment
from vitrail.tasks.result import Result, Scope


class Told(NamedTuple):
    """A report as plain data, and the result behind it."""

    report: dict[str, Any]
    result: Result


class PageError(RunError):
    """The images were scored, but the HTML page could not be made; `told` holds the scores."""

    def __init__(self, html: str, error: Exception, told: Told) -> None:
        why = str(error) if isinstance(error, RunError) else f"{html} could not be made: {reason(error)}."
        super().__init__(why)
        self.told = told


def evaluate_run(model: str, device: str = "auto") -> Told:
    """Evaluate a run on its own test split again.

    Raises:
        RunError: `model` is a file, which has no images.
        DataError: the images no longer exist.
    """
    refuse_exported(Path(model))
    if not Path(model).is_dir():
        raise RunError(
            f"{model} is a model file without test images. Name some: {command('eval', model, 'FOLDER')}"
        )
    run = open_run(model)
    predictor = Predictor(model, device)
    if run.recipe().training.tune == "draft":
        return _drafted(run, predictor)
    own = own_tests(run)
    result = tested(predictor, own.scored)
    report = report_of(predictor, result, own.manifest.counts(predictor.task))
    return Told(report | {"notes": list(own.notes)}, result)


def _drafted(run: Run, predictor: Predictor) -> Told:
    """Return the cross-validated score from a draft's report: its model was trained on all images."""
    if not run.report_path.is_file():
        raise RunError(
            f"{run.folder} is a draft without a report, so its cross-validated score is lost. Draft it again, or "
            f"name new images: {command('eval', run.folder, 'FOLDER')}"
        )
    report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
    probe = predictor.task.probe
    if "calibration" not in report or probe is None:
        raise RunError(
            f"{run.folder} was drafted by an older vitrail and has no calibration. Draft it again, or name new "
            f"images: {command('eval', run.folder, 'FOLDER')}"
        )
    note = "A draft is trained on all its images. This is its cross-validated score from the draft report."
    return Told({**report, "notes": [note]}, probe.reopen(report))


def evaluate_on(
    model: str,
    source: str,
    *,
    html: str | None = None,
    read: LayoutOptions = DEFAULTS,
    device: str = "auto",
    progress: Progress | None = None,
) -> Told:
    """Evaluate a model on new images with labels of the same kind; `html` also writes a page.

    Raises:
        DataError: a class that the model does not know, a label that its task cannot score, or nothing to score.
        PageError: the images were scored, but the page could not be made.
    """
    if html:
        refuse_unwritable(Path(html))
    predictor = Predictor(model, device)
    new = open_new_data(source, predictor.task, training_rows(model), read=read, progress=progress)
    for row in new.unusable:
        predictor.task.accepts(row)
    evaluation = evaluate(predictor, new.rows, new.manifest.root)
    result = result_of(evaluation, new.rows, Scope(new.called, frozenset(new.known)))
    report = report_of(predictor, result, {}) | {"notes": list(new.notes)}
    scored = Told(report, result)
    if html:
        try:
            write_text(Path(html), page_of_new(new, predictor, result, report))
        except Exception as error:  # drawing and rendering can fail in many ways; the scores are still valid
            raise PageError(html, error, scored) from error
    return scored


def report_of(predictor: Predictor, result: Result, splits: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return what programs read of an evaluation: the model, its scores, and the versions that counted them."""
    header = predictor.header
    return {
        "model": header.name,
        "weights": header.weights,
        "licence": header.licence,
        "parameters": count_params(predictor.network),
        "data": {"splits": splits},
        **result.to_dict(),
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
    }
