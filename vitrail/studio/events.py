"""Follow a run's history while it grows. An event's id is the byte offset behind it, so that nothing is sent twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio

PAUSE = 0.4
"""Seconds between two looks at the file."""

KEEP_ALIVE = 15.0
"""Seconds of silence after which a sign of life is sent: proxies close silent connections."""


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


async def follow(path: Path, offset: int, ended: Callable[[], bool]) -> AsyncIterator[list[Told]]:
    """Yield new events in portions, and an empty portion as a sign of life; end when `ended` and all is told."""
    silent = 0.0
    while True:
        over = await anyio.to_thread.run_sync(ended)
        found = await anyio.to_thread.run_sync(events_from, path, offset)
        if found:
            offset, silent = found[-1].offset, 0.0
            yield found
        elif over:
            return
        elif silent >= KEEP_ALIVE:
            silent = 0.0
            yield []
        await anyio.sleep(PAUSE)
        silent += PAUSE
