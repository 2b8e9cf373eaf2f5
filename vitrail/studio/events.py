"""Read a run's history while it grows. An event's id is the byte offset behind it, so that nothing is sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

TAIL = 64 * 1024
"""Bytes at the end of a history that hold its last events."""


class Told(NamedTuple):
    """An event of a run, and the offset behind it in the history."""

    offset: int
    event: dict[str, Any]


def events_from(path: Path, offset: int) -> list[Told]:
    """Return the complete events after an offset; an offset beyond the end starts anew."""
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            handle.seek(offset if offset <= size else 0)
            rest = handle.read()
    except FileNotFoundError:
        return []
    at, found = offset if offset <= size else 0, []
    for line in rest.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break  # still being written
        at += len(line)
        try:
            found.append(Told(at, json.loads(line)))
        except json.JSONDecodeError:
            continue  # the torn line of a killed run
    return found


def last_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last events of a history, without reading all of it."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - TAIL))
            text = handle.read()
    except OSError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                yield event
