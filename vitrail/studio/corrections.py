"""What was decided by hand about the images of a run's data set: a new label, or an image that is left out.

The decisions are those of the data set (`Datasets.decide`), so the check, the next training and the command line see
them. The run itself never changes.
"""

from __future__ import annotations

from typing import NamedTuple

from vitrail.data.decisions import History


class Correction(NamedTuple):
    """A decision about an image that holds: its number, the new label ("" if the image is left out), and its time."""

    number: int
    label: str
    time: str


def holding(history: History) -> dict[str, Correction]:
    """Return the last decision by hand about each image that holds."""
    undone = history.undone()
    return {
        id: Correction(one.number, one.value, one.time)
        for one in history.decisions
        if one.what in ("relabel", "drop") and one.number not in undone
        for id in one.ids
    }
