"""Puts report.html together: words, curves, the confusion matrix with its pictures, and where the network looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from vitrail import plots
from vitrail.core.text import clock
from vitrail.data.decode import preview
from vitrail.data.manifest import KEPT, Manifest
from vitrail.data.names import count, some
from vitrail.data.source import load
from vitrail.evaluate.doubts import Doubt
from vitrail.evaluate.fresh import Fresh
from vitrail.evaluate.labels import LabelScores
from vitrail.evaluate.scores import Judged, Scores
from vitrail.explainers.explanation import explain, method_for
from vitrail.infer.predictor import Predictor
from vitrail.pages import render
from vitrail.reports.album import Album
from vitrail.reports.cells import cells
from vitrail.reports.plain import loss_curve, score_curve
from vitrail.runs.folder import Run

SHOWN = 6
"""Pictures with rollout of each kind: surest mistakes, surest right answers, right ones in doubt."""

WIDTH = 520
"""Pixels of a picture and its heat map side by side."""


def page(
    run: Run, manifest: Manifest, predictor: Predictor, scores: Scores | LabelScores, report: dict[str, Any]
) -> str:
    """Return the page of a run: one self-contained file of a few MB that names no path of this machine."""
    learnt = {
        "title": f"{report['model']} on {count(len(scores.labels), 'class', 'classes')}",
        "loss": loss_curve(run),
        "curve": score_curve(run),
        "subtitle": "Scored on pictures that neither the training nor the choice of the best epoch saw",
        "notes": _checked(run, manifest),
        "learnt": True,
        "clock": clock(report["seconds"]) if report["seconds"] > 120 else f"{report['seconds']:.0f} s",
    }
    return _page(manifest, predictor, scores, report, learnt)


def page_of_new(
    new: Fresh, predictor: Predictor, scores: Scores | LabelScores, report: dict[str, Any]
) -> str:
    """Return the same page for pictures that were not the run's own: nothing is said of the training."""
    values = {
        "title": f"{report['model']} on {new.called}",
        "subtitle": "A trained model, scored on pictures that were named for it",
        "notes": [*report["notes"], *_notes(new.manifest)],
        "learnt": False,
    }
    return _page(new.manifest, predictor, scores, report, values)


def page_of_draft(
    run: Run,
    manifest: Manifest,
    scores: Scores | LabelScores,
    report: dict[str, Any],
    doubts: Sequence[tuple[Doubt, str]],
) -> str:
    """Return the page of a draft, with its doubtful labels and their pictures.

    It shows no heat maps: the answers are those of heads that had not seen the pictures, not of the model's own.
    """
    values = {
        "title": f"A draft in {report['seconds']:.0f} seconds",
        "subtitle": "A frozen network and a linear head; every picture asked once, of a head that had not seen it",
        "notes": _checked(run, manifest),
        "learnt": False,
        "doubts": doubts,
    }
    return _page(manifest, None, scores, report, values)


def _page(
    manifest: Manifest,
    predictor: Predictor | None,
    scores: Scores | LabelScores,
    report: dict[str, Any],
    learnt: dict[str, Any],
) -> str:
    album = Album(manifest.root)
    bins = [(b["sure"], *b["right"].values(), b["answers"]) for b in report["calibration"]["bins"]]
    matrix = cells(scores, album) if isinstance(scores, Scores) else None
    values = {
        "doubts": None,
        **learnt,
        "report": {"points": [], **report},
        "matrix": matrix,
        "reliability": plots.data_uri(plots.reliability(bins)),
        "looks": _looks(predictor, manifest, scores.judged) if predictor else [],
        "method": method_for(predictor.network) if predictor else None,
        "left_out": album.missing,
    }
    return render("report.html", values)


def _checked(run: Run, manifest: Manifest) -> list[str]:
    """Return what the check found when the run began; of older runs, what the manifest still tells."""
    kept = next((event for event in run.history() if event["event"] == "checked"), None)
    if kept is None:
        return list(_notes(manifest))
    return [*(one["text"] for one in kept["findings"]), *kept["notes"]]


def _notes(manifest: Manifest) -> Iterator[str]:
    """Say what the check found that bears on the score: what was kept out and why, twins, leaks."""
    out = [row for row in manifest.rows(state=None) if row.state != KEPT]
    if out:
        reasons = some((f"{row.id} ({row.reason.rstrip('.')})" for row in out), 5)
        yield f"{count(len(out), 'picture')} kept out: {reasons}."
    sizes = Counter(row.group for row in manifest.rows() if row.group)
    tied = [size for size in sizes.values() if size > 1]
    if tied:
        yield (
            f"{count(sum(tied), 'picture')} in {count(len(tied), 'group')} of twins or of one origin: a group counts "
            "once in every interval."
        )


def _looks(
    predictor: Predictor, manifest: Manifest, judged: Sequence[Judged]
) -> list[tuple[str, str, list[dict[str, str]]]]:
    """Return titled rows of pictures: the surest mistakes, the surest right answers, the right ones in doubt."""
    surest = sorted(judged, key=lambda one: -one.prediction.probability)
    wrong = [one for one in surest if not one.right]
    right = [one for one in surest if one.right]
    varied = list({one.row.label: one for one in reversed(right)}.values())
    varied.sort(key=lambda one: -one.prediction.probability)
    doubtful = [one for one in right[::-1] if one not in varied[:SHOWN]]
    rows = (
        ("Its surest mistakes", "Look at their labels first: sure mistakes are often wrong labels.", wrong),
        ("Surely right", "The surest answer of each class.", varied),
        ("Right, but in doubt", "Pictures like these are worth collecting more of.", doubtful),
    )
    return [
        (title, hint, [_look(predictor, manifest, one) for one in found[:SHOWN]])
        for title, hint, found in rows
        if found
    ]


def _look(predictor: Predictor, manifest: Manifest, one: Judged) -> dict[str, str]:
    steps = predictor.preprocess
    image = load(manifest.root, one.row.path, steps.channels, raw=steps.raw).image
    seen = preview(image) if steps.raw else image
    method = method_for(predictor.network)
    figure = explain(predictor, image, method).figure() if method else plots.shown(plots.of_array(seen))
    figure.thumbnail((WIDTH, WIDTH))
    return {
        "image": plots.photo_uri(figure),
        "truth": ", ".join(one.row.labels) or "nothing",
        "answer": one.prediction.label or "nothing",
        "sure": f"{100 * one.prediction.probability:.0f} %",
        "right": "yes" if one.right else "",
    }
