"""The page of learning curves: one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitrail import plots
from vitrail.metrics.learning_curve import Forecast
from vitrail.pages import render
from vitrail.studies.half_and_whole import HalfAndWhole
from vitrail.studies.learning_curve_words import HEAD, best_classes, lines, percent, points, rows
from vitrail.studies.learning_curves import Curve, ModelCurve


def page_of_curves(source: str, found: Sequence[ModelCurve]) -> str:
    """Return the page of the learning curves of some networks."""
    models = [_model(one) for one in found]
    return render("curve.html", {"source": source, "models": models, "head": HEAD, "pairs": []})


def page_of_trainings(source: str, found: Sequence[tuple[HalfAndWhole, Sequence[str]]]) -> str:
    """Return the page of trainings on half and on all of the images, and what is said of each network."""
    pairs = [
        {
            "name": f"{one.model}, --tune {one.tune}",
            "lines": said,
            "rows": [
                (f"{each.images:,}", each.score.text(), each.score.span()) for each in (one.half, one.whole)
            ],
        }
        for one, said in found
    ]
    return render("curve.html", {"source": source, "models": [], "head": HEAD, "pairs": pairs})


def _model(found: ModelCurve) -> dict[str, Any]:
    named = {name for name, _ in best_classes(found)}
    return {
        "name": found.model,
        "about": f"weights {found.weights}, input {' × '.join(map(str, found.imgsz))} px, "
        f"{found.tested:,} test images; score: {found.unit}",
        "lines": lines(found),
        "rows": rows(found.whole),
        "figure": _figure(found.whole, found.unit),
        "classes": [_class_row(one) for one in found.classes],
        "figures": [(one.name, _figure(one, "right")) for one in found.classes if one.name in named],
    }


def _class_row(one: Curve) -> tuple[str, str, str]:
    now = percent(one.points[-1].mean) if one.points else "–"
    if one.forecast is None:
        return one.name, now, one.why
    return one.name, now, f"{points(one.forecast.gain(2 * one.forecast.largest))} points"


def _figure(curve: Curve, score: str) -> str:
    if curve.forecast is None:
        return ""
    return plots.data_uri(plots.fan(_fan(curve, curve.forecast), score))


def _fan(curve: Curve, forecast: Forecast) -> plots.Fan:
    measured = [(float(one.images), 100 * score) for one in curve.points for score in one.scores]
    edges = [100 * (1 - np.quantile(forecast.draws, q, axis=0)) for q in (0.9, 0.5, 0.1)]
    band = (edges[0].tolist(), edges[1].tolist(), edges[2].tolist())
    return plots.Fan(measured, forecast.sizes.tolist(), band, forecast.largest)
