"""The curves of a training that a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.runs.run import Run


def loss_curve(run: Run) -> str:
    """Return the training loss over epochs, and its parts where it has several, as a data: address."""
    steps = [event for event in run.effective_history() if event["event"] == "step"]
    lines = {"training loss": thin([(event["epoch"], event["loss"]) for event in steps])}
    for part in dict.fromkeys(name for event in steps for name in event.get("parts", ())):
        seen = [(event["epoch"], event["parts"][part]) for event in steps if part in event.get("parts", ())]
        lines[part] = thin(seen)
    return plots.data_uri(plots.curves(lines, "epoch", "loss"))


def score_curve(run: Run, name: str) -> str:
    """Return the validation score over epochs, which people call `name`, as a data: address."""
    scored = [event for event in run.effective_history() if event["event"] == "score"]
    points = [(event["epoch"], event[event["main"]]) for event in scored]
    return plots.data_uri(plots.curves({"validation": points}, "epoch", name))


def thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """Return a long curve as the means of at most `most` pieces."""
    if len(points) <= most:
        return list(points)
    pieces: list[NDArray[np.floating]] = np.array_split(np.asarray(points), most)
    return [(float(piece[:, 0].mean()), float(piece[:, 1].mean())) for piece in pieces]
