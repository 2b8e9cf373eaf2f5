"""Training curves for the report page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.runs.run import Run


def loss_curve(run: Run) -> str:
    """Return a plot of the training loss over epochs, and of its parts if it has several, as a data: URI."""
    steps = [event for event in run.effective_history() if event["event"] == "step"]
    lines = {"training loss": thin([(event["epoch"], event["loss"]) for event in steps])}
    for part in dict.fromkeys(name for event in steps for name in event.get("parts", ())):
        points = [(event["epoch"], event["parts"][part]) for event in steps if part in event.get("parts", ())]
        lines[part] = thin(points)
    return plots.data_uri(plots.curves(lines, "epoch", "loss"))


def score_curve(run: Run, name: str) -> str:
    """Return a plot of the validation score `name` over epochs, as a data: URI."""
    scored = [event for event in run.effective_history() if event["event"] == "score"]
    points = [(event["epoch"], event[event["main"]]) for event in scored]
    return plots.data_uri(plots.curves({"validation": points}, "epoch", name))


def thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """Return a curve with at most `most` points, each the mean of a piece."""
    if len(points) <= most:
        return list(points)
    pieces: list[NDArray[np.floating]] = np.array_split(np.asarray(points), most)
    return [(float(piece[:, 0].mean()), float(piece[:, 1].mean())) for piece in pieces]
