"""The curves of a run: what a page draws, and what an event adds to it. Few numbers, whatever the history holds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from vitrail.runs.history import effective

MOST = 400
"""Points of a curve when a page is opened."""

MOST_AT_ONCE = 40
"""Points of a curve that one event adds."""

CHANGES = frozenset(
    {"score", "finished", "stopped", "resumed", "lengthened", "planned", "drafted", "started"}
)
"""Events after which the words of a page are different."""

Point = tuple[float, float]


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """Return a curve with at most `most` points, each the mean of a piece."""
    if len(points) <= most:
        return list(points)
    pieces = [points[len(points) * i // most : len(points) * (i + 1) // most] for i in range(most)]
    return [(fmean(x for x, _ in piece), fmean(y for _, y in piece)) for piece in pieces]


def curves(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return training loss and validation score over epochs, for a whole history."""
    return _lines(effective(history), MOST)


def additions(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what new events add to the curves. `again`: the run was resumed, so the page fetches whole curves."""
    kinds = {event["event"] for event in events}
    return {
        **_lines(events, MOST_AT_ONCE),
        "again": "resumed" in kinds,
        "words": not kinds.isdisjoint(CHANGES),
    }


def _lines(events: Sequence[dict[str, Any]], most: int) -> dict[str, Any]:
    loss = thin([(e["epoch"], e["loss"]) for e in events if e["event"] == "step"], most)
    scored = [e for e in events if e["event"] == "score"]
    score = thin([(e["epoch"], _shown(e)) for e in scored], most)
    return {
        "loss": [_short(point) for point in loss],
        "score": [_short(point) for point in score],
        "main": f"{scored[-1]['main']} {scored[-1].get('unit', '')}".strip() if scored else None,
    }


def _shown(event: dict[str, Any]) -> float:
    """Return the main score of an epoch as it is printed: shares in per cent."""
    value = float(event[event["main"]])
    return 100 * value if event.get("unit") == "%" else value


def _short(point: Point) -> list[float]:
    """Return a point with the digits that a screen shows."""
    return [float(f"{value:.5g}") for value in point]
