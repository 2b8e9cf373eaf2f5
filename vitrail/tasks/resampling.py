"""What a report says of groups that are resampled as wholes: patients, videos, blocks of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count, shorten
from vitrail.data.manifest import DUPLICATES, group_key
from vitrail.metrics.intervals import FEWEST_GROUPS, units_of

if TYPE_CHECKING:
    from vitrail.data.manifest import Row


def resampling_of(rows: Sequence[Row], shown: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Return what is resampled as wholes, as report.json holds it; empty where that is images, or duplicates.

    `shown` tells for each class which images show it. `few` are the classes that fewer than five groups show.
    """
    units = units_of([group_key(row) for row in rows])
    if not units.whole:
        return {}
    named = {row.group for row in rows if row.group and not row.group.startswith(DUPLICATES)}
    sizes = {label: len(np.unique(units.member[flags])) for label, flags in shown.items()}
    few = [label for label, groups in sizes.items() if 0 < groups < FEWEST_GROUPS]
    return {"units": units.number, "groups": len(named), "called": _called(named), "few": few}


def _called(names: set[str]) -> str:
    """Return the noun that all names begin with ("block 3,4", "patient 7"), else "group"."""
    first = {name.partition(" ")[0] if " " in name else "" for name in names}
    noun = first.pop() if len(first) == 1 else ""
    return noun if len(noun) > 3 and noun.isalpha() and noun.islower() else "group"


def told(test: Mapping[str, Any]) -> list[str]:
    """Return the sentences on what the intervals of a report's scores resample; none without groups."""
    if not (resampling := test.get("resampling")):
        return []
    called, alone = resampling["called"], resampling["units"] - resampling["groups"]
    what = count(resampling["groups"], called) + (f" and {count(alone, 'single image')}" if alone else "")
    sentences = [f"Intervals resample {what}, because what lies in one {called} is not independent."]
    if resampling["units"] < FEWEST_GROUPS:
        sentences.append(f"These are fewer than {FEWEST_GROUPS}, so the intervals are unreliable.")
    elif resampling["few"]:
        few = shorten(resampling["few"], 5)
        sentences.append(
            f"Fewer than {FEWEST_GROUPS} {called}s show {few}, so those intervals are unreliable."
        )
    return sentences


def warnings(resampling: Mapping[str, Any]) -> list[str]:
    """Return what a verdict says of unreliable intervals: one phrase, or none."""
    if not resampling or resampling["units"] >= FEWEST_GROUPS:
        return []
    return [f"from {count(resampling['units'], resampling['called'])} only, so intervals are unreliable"]
