"""Follow a run for an open page: what is new of its curves, and when its words change."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio

from vitrail.studio.app_parts import Studio
from vitrail.studio.curves import additions
from vitrail.studio.events import events_from
from vitrail.studio.output import says
from vitrail.studio.run_list import RunList
from vitrail.studio.run_view import run_folder

PAUSE = 0.4
"""Seconds between two looks at a run."""

KEEP_ALIVE = 15.0
"""Seconds of silence after which a sign of life is sent: proxies close silent connections."""


@dataclass(frozen=True)
class News:
    """What is new of a run: the offset behind its last event, and what a page adds. `values` is None for no news."""

    offset: int
    values: dict[str, Any] | None
    mark: str
    over: bool


def news(studio: Studio, name: str, offset: int, mark: str = "") -> News:
    """Return what is new behind an offset of a run's history; `mark` is that of the news before."""
    path = run_folder(studio.workspace, name) / "history.jsonl"
    told = events_from(path, offset)
    now, over = _mark(studio, name)
    if not told and now == mark:
        return News(offset, None, now, over)
    values = additions([one.event for one in told])
    values["words"] = values["words"] or now != mark
    values["over"] = over
    return News(told[-1].offset if told else offset, values, now, over)


def _mark(studio: Studio, name: str) -> tuple[str, bool]:
    """Return what is different when the words of a run are, beside its events; and whether nothing follows."""
    job = studio.queue.of_run(name)
    brief = RunList(studio.workspace, studio.database).one(name) if job is None or not job.active else None
    condition = job.state if job is not None and job.active else brief.condition(job) if brief else "failed"
    said = says(studio.queue.log(job.id)) if job is not None and job.state == "running" else ""
    stopping = job is not None and studio.queue.stopping(job.id)
    return f"{condition}|{stopping}|{said}", condition not in ("queued", "running")


async def follow(studio: Studio, name: str, offset: int) -> AsyncIterator[News]:
    """Yield news of a run until nothing follows or the studio ends; news without values are signs of life."""
    mark, spoken = "", time.monotonic()
    while not studio.ended.is_set():
        found = await anyio.to_thread.run_sync(news, studio, name, offset, mark)
        offset, mark = found.offset, found.mark
        if found.values is not None or time.monotonic() - spoken > KEEP_ALIVE:
            spoken = time.monotonic()
            yield found
        if found.over:
            return
        await anyio.sleep(PAUSE)
