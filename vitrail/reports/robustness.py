"""Measure the robustness of a model, on its own test images or on new ones, and add it to the report of its run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import RunError
from vitrail.core.files import refuse_unwritable, write_json, write_text
from vitrail.core.text import command
from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.collect_answers import rows_of
from vitrail.evaluate.new_data import NewData, open_new_data, own_tests, training_rows
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.reports.evaluate_model import PageError, Told, report_of
from vitrail.reports.run_page import page, page_of_new
from vitrail.reports.run_report import score_again
from vitrail.robustness.cost import cost_of
from vitrail.robustness.measurement import RobustnessSettings, measure, refuse_unfit, sample_of
from vitrail.robustness.options import RobustnessOptions
from vitrail.robustness.sections import is_robustness, result_of
from vitrail.runs.run import Run, open_run
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_from_dict, result_to_dict

Say = Callable[[str], None]


class _Images(NamedTuple):
    """The images to measure on, the words after their number, and what is to be said of them."""

    rows: Sequence[Row]
    root: Path
    called: str
    notes: tuple[str, ...]


def settings_of(wanted: RobustnessOptions) -> RobustnessSettings:
    """Return what is measured with these options."""
    wanted.refuse_idle()
    return RobustnessSettings(wanted.strengths() if wanted.attacked else (), wanted.attacked)


def sample_called(sample: int, whole: int, called: str) -> str:
    """Return the words for a sample of so many images."""
    return f"{sample:,} {called}" if sample == whole else f"{sample:,} of {whole:,} {called}, drawn at random"


def robustness_of_run(model: str, wanted: RobustnessOptions, device: str = "auto", say: Say = print) -> Told:
    """Measure a run on its own test images, and add the sections to its result.json, report.json and report.html.

    Raises:
        RunError: `model` is a file or a draft, which have no test images of their own.
        PageError: the images were scored, but the report could not be written.
    """
    how = settings_of(wanted)
    refuse_exported(Path(model))
    new = command("eval", model, "FOLDER", "--robustness")
    if not Path(model).is_dir():
        raise RunError(f"{model} is a model file without test images. Name some: {new}")
    run = open_run(model)
    if run.recipe().training.tune == "draft":
        raise RunError(f"{model} is a draft, which is trained on all its images. Name new ones: {new}")
    predictor = Predictor(model, device)
    refuse_unfit(predictor)
    own = own_tests(run)
    images = _Images(rows_of(own.scored, TEST), own.manifest.root, "test images", own.notes)
    told = _measured(predictor, images, wanted, how, say)
    if not run.report_path.is_file():
        told.report["notes"].append(f"{run.folder} has no report yet, so these numbers stand here alone.")
        return told
    try:
        _add(run, own.manifest, predictor, told.result)
    except Exception as error:  # drawing and rendering can fail in many ways; the numbers are still valid
        raise PageError(str(run.folder / "report.html"), error, told) from error
    return told


def robustness_on(
    model: str,
    source: str,
    wanted: RobustnessOptions,
    *,
    html: str | None = None,
    read: LayoutOptions = DEFAULTS,
    device: str = "auto",
    say: Say = print,
) -> Told:
    """Measure a model on new images with labels of the same kind; `html` also writes a page.

    Raises:
        DataError: a class that the model does not know, or nothing to score.
        PageError: the images were scored, but the page could not be made.
    """
    how = settings_of(wanted)
    if html:
        refuse_unwritable(Path(html))
    predictor = Predictor(model, device)
    refuse_unfit(predictor)
    new = open_new_data(source, predictor.task, training_rows(model), read=read)
    for row in new.unusable:
        predictor.task.accepts(row)
    told = _measured(predictor, _Images(new.rows, new.manifest.root, new.called, new.notes), wanted, how, say)
    if html:
        _write_page(html, new, predictor, told)
    return told


def _measured(
    predictor: Predictor, images: _Images, wanted: RobustnessOptions, how: RobustnessSettings, say: Say
) -> Told:
    rows = sample_of(images.rows, wanted.sample, how.seed)
    say(cost_of(predictor, rows, images.root, how))
    measured = measure(predictor, rows, images.root, how, say)
    result = result_of({"": measured}, sample_called(len(rows), len(images.rows), images.called))
    return Told(report_of(predictor, result, {}) | {"notes": list(images.notes)}, result)


def _write_page(html: str, new: NewData, predictor: Predictor, told: Told) -> None:
    try:
        write_text(Path(html), page_of_new(new, predictor, told.result, told.report))
    except Exception as error:
        raise PageError(html, error, told) from error


def _add(run: Run, manifest: Manifest, predictor: Predictor, found: Result) -> None:
    """Add the sections to the reports of a run, in the place of those of an earlier measurement."""
    report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
    kept = (
        result_from_dict(json.loads(run.result_path.read_text(encoding="utf-8")))
        if run.result_path.is_file()
        else score_again(run)
    )
    own = [section for section in kept.sections if not is_robustness(section)]
    result = kept._replace(sections=(*own, *found.sections))
    report |= {"robustness": {"verdict": found.verdict, **found.details["robustness"]}}
    html = page(run, manifest, predictor, result, report)
    write_json(run.report_path, report)
    write_json(run.result_path, result_to_dict(result))
    write_text(run.folder / "report.html", html)
