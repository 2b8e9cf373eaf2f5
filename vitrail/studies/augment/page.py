"""The page of a decision about generated images: the verdict, the comparison, and each image beside its nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.pages import render
from vitrail.plots import Bar
from vitrail.studies.augment.memorisation import Memorisation
from vitrail.studies.augment.outcome import Outcome

SHOWN = 12
"""Generated images on the page, those nearest to a real one first."""


class Shown(NamedTuple):
    """Images of a page: the root of the real ones, rows of generated and of real ones, and their distances."""

    root: Path
    made: Sequence[Row]
    real: Sequence[Row]
    check: Memorisation


def page_of(report: Mapping[str, Any], outcome: Outcome | None, shown: Shown) -> str:
    """Return the page."""
    figures = {"distances": _distances(shown.check)}
    if outcome is not None:
        figures |= {"scores": _scores(outcome), "gain": _gain(outcome)}
    values = {
        "report": report,
        "figures": {name: plots.data_uri(figure) for name, figure in figures.items()},
        "pairs": _pairs(shown),
    }
    return render("augment.html", values)


def _scores(outcome: Outcome) -> Any:
    runs = {"without": outcome.without, "with": outcome.with_made}
    bars = [
        Bar(
            f"{name} generated images",
            100 * one["value"],
            100 * one["low"],
            100 * one["high"],
            (100 * runs[name].mean(1)).tolist(),
        )
        for name, one in outcome.sides().items()
    ]
    return plots.intervals(bars, f"{outcome.score} on real test images in percent")


def _gain(outcome: Outcome) -> Any:
    parts = {
        "all test images": outcome,
        f"those of {outcome.name}": outcome.part(of_class=True),
        "those of other classes": outcome.part(of_class=False),
    }
    bars = []
    for name, part in parts.items():
        if part is not None:
            low, high = part.difference.interval()
            bars.append(Bar(name, 100 * part.difference.value, 100 * low, 100 * high))
    return plots.intervals(bars, "gain in points; grey: ± 1", 1.0)


def _distances(check: Memorisation) -> Any:
    """Draw the share of images whose nearest real one is at most so far away."""
    lines = {"generated images": _steps(check.made), "real images, each left out": _steps(check.real)}
    return plots.curves(lines, "distance to the nearest real image", "share of the images")


def _steps(values: NDArray[np.float64]) -> list[tuple[float, float]]:
    ordered = np.sort(values)
    return [(float(one), (i + 1) / len(ordered)) for i, one in enumerate(ordered)]


def _pairs(shown: Shown) -> list[dict[str, str]]:
    """Return generated images beside their nearest real ones, the nearest first."""
    order = np.argsort(shown.check.made, kind="stable")[:SHOWN]
    pairs = []
    for place in order.tolist():
        made, real = shown.made[place], shown.real[int(shown.check.nearest[place])]
        images = [
            plots.titled(plots.shown(plots.of_array(load(shown.root, row.path, 3, row.part).image)), title)
            for row, title in ((made, "generated"), (real, "nearest real"))
        ]
        copy = " · copy, left out" if shown.check.copies[place] else ""
        pairs.append(
            {
                "image": plots.photo_uri(plots.beside(*images)),
                "text": f"{shown.check.made[place]:.3f}{copy}",
                "id": real.id,
            }
        )
    return pairs
