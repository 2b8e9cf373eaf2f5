"""Every run of a workspace, also those that were started from a terminal: summaries, cached until a file changes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from vitrail.core.config import read_mapping
from vitrail.core.errors import SettingError
from vitrail.studio.database import Database
from vitrail.studio.events import last_events
from vitrail.studio.jobs import Job
from vitrail.studio.workspace import Workspace, inside
from vitrail.tasks.result import Number

Condition = Literal["queued", "running", "done", "stopped", "failed"]

ALIVE = 180.0
"""Seconds without an event after which a run that no job of this studio writes counts as stopped."""

HEAD = 4
"""Events at the beginning of a history among which a run says when it started."""

PAGE = 48
"""Runs of one page of the list."""


@dataclass(frozen=True)
class Summary:
    """What lists and headlines say of a run; all of it is in the files of its folder.

    `score` is the most important score on images that the run did not train on; `value` its number for sorting;
    `looked` when it read its images, in seconds since 1970.
    """

    name: str
    changed: float
    model: str = ""
    source: str = ""
    tune: str = ""
    verdict: str = ""
    score: str = ""
    span: str = ""
    value: float | None = None
    lower_is_better: bool = False
    ended: str = ""
    usable: bool = False
    resumable: bool = False
    looked: float = 0.0

    def condition(self, job: Job | None) -> Condition:
        """Return how far the run is; `job` is the newest job that writes it."""
        if job is not None and job.active:
            return "running" if job.state == "running" else "queued"
        if job is not None and job.state == "failed" and not self.usable:
            return "failed"
        if self.ended in ("finished", "drafted"):
            return "done"
        silent = time.time() - self.changed
        return "running" if job is None and not self.ended and silent < ALIVE else "stopped"


def folders(workspace: Workspace) -> list[tuple[float, str]]:
    """Return (time of the last change, name) of every run, the newest first, without links out of the workspace."""
    found = []
    with suppress(OSError):
        for folder in workspace.runs.iterdir():
            if (changed := _changed(folder)) is not None and inside(folder, workspace.runs):
                found.append((changed, folder.name))
    return sorted(found, reverse=True)


def _changed(folder: Path) -> float | None:
    """Return when a run last changed; None if the folder is none."""
    try:
        made = (folder / "recipe.yaml").stat().st_mtime
    except OSError:
        return None
    with suppress(OSError):
        return max(made, (folder / "history.jsonl").stat().st_mtime)
    return made


class RunList:
    """The summaries of a workspace's runs. They are kept in the database, which can be thrown away."""

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self.workspace, self.database = workspace, database

    def page(self, before: tuple[float, str] | None = None, count: int = PAGE) -> list[Summary]:
        """Return some runs, the newest first, from behind the place `before`."""
        places = [place for place in folders(self.workspace) if before is None or place < before]
        return self._summaries([name for _, name in places[:count]])

    def all(self) -> list[Summary]:
        """Return all runs, the newest first."""
        return self._summaries([name for _, name in folders(self.workspace)])

    def one(self, name: str) -> Summary | None:
        """Return the summary of a run, or None if there is no such folder."""
        found = self._summaries([name]) if _changed(self.workspace.runs / name) is not None else []
        return found[0] if found else None

    def _summaries(self, names: Sequence[str]) -> list[Summary]:
        with self.database.transaction() as connection:
            marks = ",".join("?" * len(names))
            rows = connection.execute(f"SELECT * FROM summaries WHERE run IN ({marks})", names).fetchall()
        known = {row["run"]: row for row in rows}
        found, fresh = [], []
        for name in names:
            stamp, row = _stamp(self.workspace.runs / name), known.get(name)
            if row is not None and row["stamp"] == stamp:
                found.append(Summary(**json.loads(row["summary"])))
                continue
            found.append(summary(self.workspace.runs / name))
            fresh.append((name, stamp, json.dumps(asdict(found[-1]))))
        if fresh:
            with self.database.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO summaries VALUES (?, ?, ?)", fresh)
        return found


def _stamp(folder: Path) -> str:
    """Return what is different after each change of a run's files."""
    marks = []
    for name in (
        "recipe.yaml",
        "history.jsonl",
        "report.json",
        "model.safetensors",
        "state/last.safetensors",
    ):
        with suppress(OSError):
            status = (folder / name).stat()
            marks.append(f"{name}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join(marks)


def summary(folder: Path) -> Summary:
    """Return the summary of a run folder, from its files."""
    try:
        recipe = read_mapping(folder / "recipe.yaml")
    except SettingError:
        recipe = {}
    report, last = report_of(folder), list(last_events(folder / "history.jsonl"))
    score = _first_score(report) if report else _last_score(last)
    ends = [
        event["event"] for event in last if event["event"] in ("finished", "stopped", "drafted", "resumed")
    ]
    return Summary(
        name=folder.name,
        changed=_changed(folder) or 0.0,
        model=_text(recipe, "model", "name"),
        source=_text(recipe, "data", "source"),
        tune=_text(recipe, "training", "tune"),
        verdict=str(report.get("verdict", "")),
        score=score.text() if score else "",
        span=score.span() if score and score.low is not None else "",
        value=score.value if score else None,
        lower_is_better=score is not None and score.better == "lower",
        ended=ends[-1] if ends and ends[-1] != "resumed" else "",
        usable=(folder / "model.safetensors").is_file(),
        resumable=(folder / "state" / "last.safetensors").is_file(),
        looked=_looked(folder),
    )


def _looked(folder: Path) -> float:
    """Return when a run read its images: as it says at its beginning, else when its folder was made."""
    with suppress(OSError, ValueError), (folder / "history.jsonl").open(encoding="utf-8") as history:
        for line in islice(history, HEAD):
            event = json.loads(line)
            if event["event"] == "started":
                return float(event.get("looked") or event["time"])
    with suppress(OSError):
        return (folder / "recipe.yaml").stat().st_mtime
    return 0.0


def _text(recipe: Mapping[str, Any], part: str, name: str) -> str:
    values = recipe.get(part)
    return str(values.get(name, "")) if isinstance(values, Mapping) else ""


def report_of(folder: Path) -> dict[str, Any]:
    """Return the report of a run; empty if there is none, or if it is older than a training that goes on."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report


def _first_score(report: Mapping[str, Any]) -> Number | None:
    """Return the most important score of a report: the first with a value."""
    scores = report.get("test", {})
    found = next((one for one in scores.values() if isinstance(one, Mapping) and "value" in one), None)
    return Number.of(found) if found else None


def _last_score(events: Sequence[Mapping[str, Any]]) -> Number | None:
    """Return the best validation score so far; its interval, if its epoch is among these events."""
    scored = [event for event in events if event["event"] == "score"]
    best = next((event for event in reversed(scored) if event["better"]), None)
    if best is not None:
        return Number(best[best["main"]], best.get("low"), best.get("high"), best.get("unit", ""))
    return Number(scored[-1]["best"], unit=scored[-1].get("unit", "")) if scored else None
