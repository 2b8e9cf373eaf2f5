"""Report of a draft: cross-validated score, label errors, and estimates for more images and a fine-tune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from vitrail import plots
from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import Manifest
from vitrail.data.open_image import load
from vitrail.evaluate.cross_validation import Folded
from vitrail.evaluate.label_errors import write_doubts
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import count_params
from vitrail.reports.run_page import DraftPage, Drawer, page_of_draft
from vitrail.reports.run_report import values_of
from vitrail.runs.model_card import card
from vitrail.runs.passport import passport_of
from vitrail.runs.reproduce import train_command
from vitrail.runs.run import Run
from vitrail.runs.versions import environment
from vitrail.tasks.base import Task
from vitrail.tasks.probe import DenseProbe, Doubt
from vitrail.tasks.result_file import result_to_dict

SHOWN = 48
"""Number of label errors on the page; the CSV table contains all of them."""


@dataclass(frozen=True)
class Outlook:
    """Estimates of a draft: seconds per phase; seconds of a full fine-tune, lower bound and usual; accuracy; gain.

    `half` is the accuracy with half of the images, `gain` the estimated gain from twice the images.
    """

    phases: dict[str, float]
    full: float
    full_usual: float
    half: float
    gain: float


def write_draft_report(run: Run, manifest: Manifest, found: Folded, outlook: Outlook) -> dict[str, Any]:
    """Write the reports of a draft, as data and as a page, and its label errors into its run."""
    doubtful = found.task.probe.doubts(found.evaluation) if found.task.probe else None
    predictor = Predictor(run.folder)
    header = predictor.header
    report = {
        "finished": True,
        "draft": True,
        "model": header.name,
        "weights": header.weights,
        "licence": header.licence,
        "task": header.task["name"],
        "parameters": count_params(predictor.network),
        "imgsz": list(predictor.preprocess.size),
        "seconds": round(sum(outlook.phases.values()), 1),
        "phases": {name: round(seconds, 2) for name, seconds in outlook.phases.items()},
        **found.result.details,
        "gain_from_twice": round(outlook.gain, 4),
        "half": round(outlook.half, 4),
        "doubts": None if doubtful is None else len(doubtful),
        "full_seconds": round(outlook.full, 1),
        "full_seconds_usual": round(outlook.full_usual, 1),
        "verdict": found.result.verdict,
        "data": {"splits": {"all": _totals(manifest, found.task)}, "states": manifest.states()},
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
    }
    again = train_command(run.recipe(), header.weights, manifest.truth.kind)
    report["passport"] = passport_of(run, manifest, ("draft", again), values_of(found.result))
    write_json(run.report_path, report)
    write_json(run.result_path, result_to_dict(found.result))
    shown = None
    if doubtful is not None:
        write_doubts(run.folder / "doubts.csv", doubtful)
        shown = [(one, _picture(manifest, one)) for one in doubtful[:SHOWN]]
    drawer = None
    if isinstance(found.task.probe, DenseProbe):
        drawer = Drawer(found.task, predictor.preprocess, lambda shot, _: found.said(shot.id))
    page = page_of_draft(run, manifest, DraftPage(found.result, report, shown, drawer))
    write_text(run.folder / "report.html", page)
    write_text(run.folder / "README.md", card(header, predictor.task, report, found.result))
    return report


def _totals(manifest: Manifest, task: Task[Any, Any]) -> dict[str, int]:
    """Return the number of images per class over all splits: a draft is trained on all of them."""
    counts = manifest.counts(task).values()
    return {name: sum(split[name] for split in counts) for name in next(iter(counts))}


def _picture(manifest: Manifest, one: Doubt) -> str:
    image = plots.shown(Image.fromarray(load(manifest.root, one.row.path, part=one.row.part).image), 128)
    image.thumbnail((224, 224))
    return plots.photo_uri(image)
