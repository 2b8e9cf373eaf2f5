"""The page of a comparison: one HTML file with the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from vitrail import plots
from vitrail.core.errors import VitrailError
from vitrail.data.loader import load_for
from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.explainers.explanation import explain
from vitrail.infer.predictor import Predictor
from vitrail.pages import render
from vitrail.plots import Bar
from vitrail.reports.run_page import plain_layout
from vitrail.studies.compare.sentences import HEAD, class_table, notes_of, table_of
from vitrail.tasks.result import Section

SHOWN = 4
"""Images a pair of which only one of two networks is correct, on the page."""

METHODS = ("rollout", "gradcam", "occlusion")
"""What draws where a network looked: the first of these that fits it."""


def page_of(
    report: Mapping[str, Any],
    manifest: Manifest | None,
    models: Mapping[str, Path],
    robustness: Sequence[Section] = (),
) -> str:
    """Return the page; `models` are the kept runs of the first round, `manifest` that round's images."""
    rows = [row for row in report["contestants"] if not row["crashed"]]
    values = {
        "verdict": report["verdict"],
        "head": HEAD,
        "rows": table_of(report),
        "notes": notes_of(report),
        "score": report["score"],
        "figures": _figures(report, rows),
        "classes": class_table(report),
        "pairs": _pairs(report, manifest, models),
        "contestants": report["contestants"],
        "robust": report["robustness"]["sentences"] if "robustness" in report else [],
        "sections": [laid for section in robustness if (laid := plain_layout(section))],
    }
    return render("compare.html", values)


def _figures(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the drawings by name as data: addresses; those that have nothing to show are left out."""
    name = f"{report['score']} in percent"
    bars = [_bar(row) for row in rows]
    drawn = {"scores": plots.intervals(bars, name)} if bars else {}
    differences = [
        Bar(f"{one['first']} − {one['second']}", *(100 * one[part] for part in ("difference", "low", "high")))
        for one in report["pairs"]
        if "difference" in one
    ]
    if differences:
        region = 100 * report["region"]
        drawn["differences"] = plots.intervals(
            differences, f"difference in points; grey: ± {region:g}", region
        )
    panels = [
        (title, [(row[key] * factor, bar) for row, bar in zip(rows, bars, strict=True)])
        for title, key, factor in (
            ("multiply-adds of an image, in 10⁹", "macs", 1e-9),
            ("milliseconds of an image", "latency", 1e3),
        )
        if rows and all(row[key] for row in rows)
    ]
    if panels:
        drawn["cost"] = plots.costs(panels, name)
    need = {
        row["name"]: [
            (50.0, 100 * sum(one["half"] for one in row["halves"]) / len(row["halves"])),
            (100.0, 100 * sum(one["whole"] for one in row["halves"]) / len(row["halves"])),
        ]
        for row in rows
        if row["halves"]
    }
    if need:
        drawn["need"] = plots.curves(need, "percent of the training images", name)
    return {key: plots.data_uri(figure) for key, figure in drawn.items()}


def _bar(row: Mapping[str, Any]) -> Bar:
    score = row["score"]
    values = (100 * score["value"], 100 * score["low"], 100 * score["high"])
    return Bar(row["name"], *values, [100 * one for one in row["rounds"]])


def _pairs(
    report: Mapping[str, Any], manifest: Manifest | None, models: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Return for each pair the images that only one of two answers correctly, with where both looked."""
    if manifest is None:
        return []
    tests = {row.id: row for row in manifest.rows(TEST)}
    predictors = {name: Predictor(path) for name, path in models.items()}
    found = []
    for one in report["pairs"]:
        first, second = one["first"], one["second"]
        if "only_first" not in one or not {first, second} <= predictors.keys():
            continue
        sides = []
        for winner, other, key in ((first, second, "only_first"), (second, first, "only_second")):
            rows = [tests[id] for id in one[key]["ids"] if id in tests][:SHOWN]
            shots = [
                _shot(row, manifest, [(name, predictors[name]) for name in (first, second)]) for row in rows
            ]
            sides.append({"winner": winner, "other": other, "images": one[key]["images"], "shots": shots})
        found.append({"sides": sides, "images": sum(side["images"] for side in sides)})
    return found


def _shot(row: Row, manifest: Manifest, predictors: Sequence[tuple[str, Predictor]]) -> dict[str, str]:
    """Return an image beside where each network looked, and what each of them answered."""
    first = predictors[0][1].preprocess
    image = load_for(first, manifest.root, row)
    original = plots.shown(plots.of_array(first.visible(image)))
    looked = [_looked(name, predictor, image) for name, predictor in predictors]
    return {
        "image": plots.photo_uri(plots.beside(plots.titled(original, row.target or row.id), *looked)),
        "id": row.id,
    }


def _looked(name: str, predictor: Predictor, image: NDArray[Any]) -> Image.Image:
    """Return where a network looked, titled with its answer; the image alone where no method fits it."""
    for method in METHODS:
        try:
            found = explain(predictor, image, method)
        except VitrailError:
            continue
        return plots.titled(found.overlay(), f"{name}: {found.prediction}")
    return plots.titled(
        plots.shown(plots.of_array(predictor.preprocess.visible(image))),
        f"{name}: {predictor.predict([image])[0]}",
    )
