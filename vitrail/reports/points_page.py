"""The operating points of a model as a figure and a table, for the page of a run and a page of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail import plots
from vitrail.core.text import command
from vitrail.infer.operating_points import name_of
from vitrail.pages import render
from vitrail.plots.front_figure import FrontPoint, front
from vitrail.plots.interval_figures import Bar
from vitrail.tasks.result import Number


def laid_out(rows: Sequence[Mapping[str, Any]], score: str) -> dict[str, Any]:
    """Return measured points for the template `partials/points.html`; rows with a `network` are of other models."""
    numbers = [Number.of(row["score"]) for row in rows]
    return {
        "score": score,
        "figure": plots.data_uri(_figure(rows, score)),
        "rows": [
            {
                **row,
                "name": name_of(row),
                "told": number.text(),
                "span": number.span(),
                "latency": f"{row['latency_ms']:.1f}" if "latency_ms" in row else "–",
            }
            for row, number in zip(rows, numbers, strict=True)
        ],
        "note": _note(rows),
    }


def _figure(rows: Sequence[Mapping[str, Any]], score: str) -> Any:
    scale = 100 if rows and rows[0]["score"].get("unit", "%") == "%" else 1
    points = []
    for row in rows:
        number, name = row["score"], name_of(row)
        value = number["value"]
        low, high = (value if number.get(side) is None else number[side] for side in ("low", "high"))
        cost = 1000 / row["images_per_second"]
        bar = Bar(name, scale * value, scale * low, scale * high)
        points.append(FrontPoint(cost, bar, bool(row["beaten_by"]), "network" in row))
    x = "milliseconds of the network for an image, in batches"
    return front(points, x, f"{score}, %" if scale == 100 else score)


def _note(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    called = first.get("called", "validation images")
    machine = f" ({first['machine']})" if first.get("machine") else ""
    return (
        f"Measured on {first['pictures']:,} {called}, in the backend that is fastest on this machine{machine}. "
        "Latency: from file to answer, one image at a time, of which 95 of 100 take no longer. A point is beaten if "
        "another is at least as accurate and as fast, and better in one of both."
    )


def verdict(rows: Sequence[Mapping[str, Any]], whole: str) -> str:
    """Return in one sentence what the dial is worth: the fastest point within one point of the whole network."""
    full = next((row for row in rows if row["point"] == whole and "network" not in row), None)
    if full is None or full["score"].get("unit", "%") != "%" or full["score"].get("better") == "lower":
        return "Every operating point shares one set of weights."
    near = [
        row
        for row in rows
        if "network" not in row and full["score"]["value"] - row["score"]["value"] <= 0.01 and row is not full
    ]
    best = max(near, key=lambda row: float(row["images_per_second"]), default=None)
    if best is None or best["images_per_second"] <= full["images_per_second"]:
        return "No operating point is faster than the whole network at less than one point lost."
    return (
        f"{best['point']} is {best['images_per_second'] / full['images_per_second']:.1f} times as fast as the whole "
        f"network and {_lost(full, best)}."
    )


def _lost(full: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return in words what a point loses, with the paired interval."""
    lost = 100 * (full["score"]["value"] - row["score"]["value"])
    gains = lost <= -0.05
    words = "loses nothing" if abs(lost) < 0.05 else f"{'gains' if gains else 'loses'} {abs(lost):.1f} points"
    spread = row.get("lost", {})
    if spread.get("low") is None:
        return f"{words}; {row['pictures']:,} images are too few to be sure"
    low, high = sorted(100 * (-spread[side] if gains else spread[side]) for side in ("low", "high"))
    return f"{words} (95 % interval of the {'gain' if gains else 'loss'}: {low:+.1f} to {high:+.1f})"


def points_page(
    model: str, rows: Sequence[Mapping[str, Any]], score: str, whole: str, notes: Sequence[str]
) -> str:
    """Return the page of the operating points of a model."""
    named = next((row for row in rows if not row["beaten_by"] and "network" not in row), rows[0])
    values = {
        "model": model,
        "points": laid_out(rows, score),
        "verdict": verdict(rows, whole),
        "commands": [
            command("predict", model, "FOLDER", "--latency", "20ms"),
            command("predict", model, "FOLDER", "--point", named["point"]),
        ],
        "notes": list(notes),
    }
    return render("points.html", values)
