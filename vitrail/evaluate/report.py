"""Writes what a run is worth: report.json for programs, report.html and the model card for people."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitrail import __version__, plots
from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import TEST, Manifest
from vitrail.data.source import load as load_picture
from vitrail.evaluate.scores import Judged, Scores, measure, score
from vitrail.infer.predictor import Predictor
from vitrail.models.create import count_params
from vitrail.pages import render
from vitrail.runs.folder import Run
from vitrail.tasks.classify import Classify

SHOWN = 8
"""Pictures of a kind on the page."""


def write_report(run: Run, manifest: Manifest, *, seconds: float, finished: bool) -> dict[str, Any]:
    """Score the run's model on its test split and write report.json, report.html and README.md into the run."""
    predictor = Predictor(run.folder)
    report = {
        "finished": finished,
        "model": predictor.header.name,
        "weights": predictor.header.weights,
        "seconds": round(seconds, 1),
        "data": {"splits": manifest.counts(), "states": manifest.states()},
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
    }
    if isinstance(predictor.task, Classify):
        scores = score(predictor, manifest, TEST)
        report |= {"verdict": verdict(scores), "test": scores.to_dict()}
        html = page(run, manifest, predictor, scores, report)
    else:
        found = measure(predictor, manifest, TEST)
        report |= {"verdict": plain_verdict(found, len(manifest.rows(TEST))), "test": found}
        html = render("report_plain.html", {"report": report, "curve": _curve(run)})
    write_json(run.report_path, report)
    write_text(run.folder / "report.html", html)
    write_text(run.folder / "README.md", card(predictor, report))
    return report


def plain_verdict(found: dict[str, float], pictures: int) -> str:
    """Say the scores of a task that has no classes to tell about."""
    said = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    return f"{said} on {pictures:,} pictures it never saw."


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, and nothing that names the machine."""
    return {
        "vitrail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def verdict(scores: Scores) -> str:
    """Say in one sentence how good the model is."""
    said = (
        f"{scores.accuracy.value:.1%} right ({scores.accuracy.low:.1%} – {scores.accuracy.high:.1%}) "
        f"on {len(scores.judged):,} pictures it never saw"
    )
    weak = scores.weakest()
    if weak is None or weak[1]["value"] == 1.0:
        return said + "."
    label, row = weak
    return f"{said}; weakest: {label}, {row['value']:.1%}, mostly taken for {row['taken_for']}."


def page(run: Run, manifest: Manifest, predictor: Predictor, scores: Scores, report: dict[str, Any]) -> str:
    """Return report.html: one self-contained file that names no path of this machine."""
    events = run.history()
    losses = [(e["epoch"], e["loss"]) for e in events if e["event"] == "step"]
    wrong = sorted(
        (one for one in scores.judged if not one.right), key=lambda one: -one.prediction.probability
    )
    right = sorted((one for one in scores.judged if one.right), key=lambda one: one.prediction.probability)
    return render(
        "report.html",
        {
            "title": f"{report['model']} on {len(scores.labels)} classes",
            "verdict": verdict(scores),
            "report": report,
            "parameters": count_params(predictor.network),
            "loss": plots.data_uri(plots.curves({"training loss": thin(losses)}, "epoch", "loss")),
            "curve": _curve(run),
            "confusion": plots.data_uri(plots.confusion(scores.matrix(), scores.labels)),
            "wrong": [_shown(one, manifest) for one in wrong[:SHOWN]],
            "doubtful": [_shown(one, manifest) for one in right[:SHOWN]],
        },
    )


def _curve(run: Run) -> str:
    scored = [event for event in run.history() if event["event"] == "score"]
    kept = [(event["epoch"], event[event["main"]]) for event in scored]
    return plots.data_uri(plots.curves({"validation": kept}, "epoch", scored[0]["main"] if scored else ""))


def thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """Return a long curve as the means of at most `most` pieces."""
    if len(points) <= most:
        return list(points)
    pieces: list[NDArray[np.floating]] = np.array_split(np.asarray(points), most)
    return [(float(piece[:, 0].mean()), float(piece[:, 1].mean())) for piece in pieces]


def _shown(one: Judged, manifest: Manifest) -> dict[str, str]:
    image = plots.shown(Image.fromarray(load_picture(manifest.root, one.row.path).image), 160)
    image.thumbnail((320, 320))
    return {
        "image": plots.data_uri(image),
        "truth": one.row.label,
        "answer": one.prediction.label,
        "sure": f"{one.prediction.probability:.0%}",
    }


def card(predictor: Predictor, report: dict[str, Any]) -> str:
    """Return the model card in the hub's format."""
    labels = ", ".join(predictor.labels[:20]) + (" …" if len(predictor.labels) > 20 else "")
    size = " × ".join(map(str, predictor.preprocess.size))
    lines = [
        "---",
        "library_name: vitrail",
        "pipeline_tag: image-classification",
        "---",
        f"# {report['model']}, {len(predictor.labels)} classes",
        "",
        report["verdict"],
        "",
        f"- Classes: {labels}",
        f"- Input: {size} px, {predictor.preprocess.fit}",
        f"- Started from: {report['weights']}",
        f"- Trained in {report['seconds']:.0f} s with vitrail {__version__}, torch {torch.__version__}",
        "",
        "Use it: `vitrail predict model.safetensors picture.jpg`. The file holds its classes, its preprocessing and",
        "a proof picture; opening it checks that it answers as it did in training.",
        "",
    ]
    return "\n".join(lines)
