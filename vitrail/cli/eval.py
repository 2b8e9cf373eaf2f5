"""vitrail eval."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def evaluate(
    model: str,
    data: str = "",
    /,
    *,
    html: str | None = None,
    layout: str = "auto",
    device: str = "auto",
    points: str | None = None,
    json: bool = False,
) -> int:
    """Say how good a trained model is: on its own test pictures, or on new ones.

    Every score comes with its 95 % interval, in which twins count once; a dash means that there are too few pictures
    to tell one. New pictures are checked first, and their classes are matched by name with the model's.

        vitrail eval runs/photos
        vitrail eval runs/photos other-photos/ --html other.html
        vitrail eval runs/photos --points all
        vitrail eval model.safetensors other-photos/ --json

    Parameters
    ----------
    model
        a run folder, or a model.safetensors
    data
        new pictures with their classes: a folder, table or archive as for training; its test split, if it has one
    html
        write the page for new pictures to this file (a run's own page is its report.html)
    layout
        how the new pictures lie, where the guess is wrong
    device
        auto, cpu, cuda, mps
    points
        measure operating points instead: all, or a list such as 160px/0.7,224px/1
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.there import data_there, model_there
    from vitrail.core.errors import SettingError

    model_there(model)
    if data:
        data_there(data)
    from vitrail.reports.eval import evaluate_on, evaluate_run

    if points:
        return _points(model, points, data, layout, device, json)
    if html and not data:
        raise SettingError(f"The page of a run's own test pictures is there already: {model}/report.html")
    report = (
        evaluate_on(model, data, html=html, layout=layout, device=device)
        if data
        else evaluate_run(model, device)
    )
    if json:
        print_json(report)
        return 0
    for note in report["notes"]:
        say(note)
    sys.stdout.write("\n".join(_lines(report)) + "\n")
    if html:
        say(f"page    {html}")
    return 0


def _points(model: str, points: str, data: str, layout: str, device: str, json: bool) -> int:
    from vitrail.cli.output import print_json, say, table
    from vitrail.reports.points import evaluate_points

    report = evaluate_points(model, points, data, layout=layout, device=device)
    if json:
        print_json(report)
        return 0
    for note in report["notes"]:
        say(note)
    rows = [
        [
            row["point"],
            _percent(row["score"]["value"]),
            _span(row["score"]),
            f"{row['gmacs']:.3g}",
            f"{row['images_per_second']:.0f}",
            f"beaten by {row['beaten_by']}" if row["beaten_by"] else "",
        ]
        for row in report["points"]
    ]
    head = ["point", "right", "95 % interval", "GMACs", "images/s here", ""]
    sys.stdout.write(table(head, rows, right=(1, 3, 4)) + "\n")
    say("A point is beaten where another is as right and as quick, and in one of both better.")
    return 0


def _lines(report: dict[str, Any]) -> Iterator[str]:
    from vitrail.cli.output import table

    test = report["test"]
    yield report["verdict"]
    yield ""
    rows = [[label, str(row["pictures"]), *_cells(row)] for label, row in test["per_class"].items()]
    head = [
        "class",
        "pictures",
        "right" if "confusion" in test else "found",
        "95 % interval",
        "precision",
        "F1",
        "AUROC",
        "taken for",
    ]
    yield table(head, rows, right=(1, 2, 4, 5, 6))
    yield ""
    names = {
        "accuracy": "right",
        "top5": "among five",
        "balanced_accuracy": "mean over classes",
        "map": "mAP",
    }
    names |= {"f1": "F1, mean", "auroc": "AUROC, mean", "without_twins": "without twins"}
    wide = [
        [said, _percent(test[key]["value"]), _span(test[key])] for key, said in names.items() if key in test
    ]
    yield table(["", "score", "95 % interval"], wide, right=(1,))
    found = report["calibration"]
    yield ""
    yield (
        f"calibration error {_percent(found['ece_after'])}; chance alone would show {_percent(found['ece_noise'])} "
        f"(without temperature {_percent(found['ece_before'])})"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    if not row["pictures"]:
        return ["–", "–", _percent(row["precision"]["value"]), "–", "–", ""]
    others = [_percent(row[name]["value"]) for name in ("precision", "f1", "auroc")]
    return [_percent(row["value"]), _span(row), *others, row["taken_for"] or ""]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _span(row: dict[str, Any]) -> str:
    return "–" if row["low"] is None else f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
