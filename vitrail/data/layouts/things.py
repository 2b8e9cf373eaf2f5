"""Which classes are those of objects, as the option --things says."""

from __future__ import annotations

import json
from dataclasses import replace

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.labels import count, label, shorten
from vitrail.data.layouts.base import Entry, Layout
from vitrail.data.manifest import dump_target

_KINDS = ("instances", "boxes", "panoptic")


def with_things(layout: Layout, stated: str) -> Layout:
    """Return a reading with objects of the stated classes alone, "car,pedestrian"; of panoptic truths, all stay.

    Raises:
        SettingError: its truths are no objects, or there is no such class.
    """
    if layout.truth.kind not in _KINDS:
        raise SettingError(
            f"--things names classes of objects, and these truths are of the kind {layout.truth.kind}. Leave it out, "
            "or name a task for objects: --task instances"
        )
    wanted = [label(name.strip()) for name in stated.split(",") if name.strip()]
    known = layout.truth.names
    for name in wanted:
        if name not in known:
            raise UnknownNameError("class", name, known, f"--things: there are {shorten(known, 12)}.")
    names = tuple(name for name in known if name in wanted)
    if layout.truth.kind == "panoptic":
        return replace(layout, truth=replace(layout.truth, things=names))
    entries = tuple(_only(entry, names) for entry in layout.found)
    gone = [name for name in known if name not in names]
    note = f"--things: {count(len(gone), 'class', 'classes')} left aside: {shorten(gone, 12)}."
    truth = replace(layout.truth, names=names)
    return replace(layout, found=entries, truth=truth, notes=(*layout.notes, note))


def _only(entry: Entry, names: tuple[str, ...]) -> Entry:
    if not entry.target:
        return entry
    kept = [one for one in json.loads(entry.target) if one["class"] in names]
    return entry._replace(target=dump_target(kept))
