"""What the page of a run says: how far it is, how good, what can be done with it. Read from its folder and its job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.config import read_mapping
from vitrail.core.errors import RunError, SettingError
from vitrail.runs.history import effective
from vitrail.studio.commands import Command, training
from vitrail.studio.events import events_from
from vitrail.studio.jobs import Job, Queue
from vitrail.studio.output import says
from vitrail.studio.run_list import Condition, Summary, report_of, summary
from vitrail.studio.workspace import Workspace, inside, safe_name
from vitrail.tasks.result import Number

RECENT = 50
"""Steps whose time tells how long the rest takes."""


@dataclass(frozen=True)
class Score:
    """The validation score of an epoch, as text."""

    epoch: float
    name: str
    text: str
    span: str
    best: bool


@dataclass(frozen=True)
class RunView:
    """What the page of a run says."""

    name: str
    condition: Condition
    stopping: bool
    job: Job | None
    summary: Summary
    scores: tuple[Score, ...]
    epoch: float
    epochs: float | None
    left: float | None
    live: int
    log: str
    offset: int
    recipe: Mapping[str, Any]
    report: Mapping[str, Any]
    ahead: int

    @property
    def share(self) -> float | None:
        """The share of the training that is done."""
        return min(1.0, self.epoch / self.epochs) if self.epochs else None

    @property
    def best(self) -> Score | None:
        """The best score so far."""
        return next((score for score in reversed(self.scores) if score.best), None)

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands that started it, or that continue it, for the command line and for Python."""
        words = self.job.words if self.job else ("train", "--resume", f"runs/{self.name}")
        return (training(words),)


def view(workspace: Workspace, queue: Queue, name: str) -> RunView:
    """Return what the page of a run says; the run may not have begun yet.

    Raises:
        RunError: there is neither such a run nor a job for it.
    """
    folder = run_folder(workspace, name)
    job = queue.of_run(folder.name)
    there = (folder / "recipe.yaml").is_file()
    if job is None and not there:
        raise RunError(f"There is no run called {name!r} here. It may have been renamed or moved away.")
    told = events_from(folder / "history.jsonl", 0)
    history = effective(one.event for one in told)
    brief = summary(folder) if there else Summary(folder.name, job.queued if job else 0.0)
    condition = brief.condition(job)
    recipe = _recipe(folder) if there else {}
    epoch, epochs = _epochs(history, recipe)
    return RunView(
        name=folder.name,
        condition=condition,
        stopping=job is not None and queue.stopping(job.id),
        job=job,
        summary=brief,
        scores=tuple(_scores(history)),
        epoch=epoch,
        epochs=epochs,
        left=seconds_left(history, epoch, epochs) if condition == "running" else None,
        live=_changed(folder / "live.png"),
        log=says(queue.log(job.id)) if job is not None and job.state == "running" else "",
        offset=told[-1].offset if told else 0,
        recipe=recipe,
        report=report_of(folder) if condition != "running" else {},
        ahead=_ahead(queue, job),
    )


def run_folder(workspace: Workspace, name: str) -> Path:
    """Return the folder of a run, whether it is there or not. RunError for a name that leads out of the workspace."""
    folder = workspace.runs / safe_name(name)
    if not inside(folder, workspace.runs):
        raise RunError(f"{name!r} is a link that leads out of {workspace.runs}. Put the run itself there.")
    return folder


def _recipe(folder: Path) -> dict[str, Any]:
    try:
        return read_mapping(folder / "recipe.yaml")
    except SettingError:
        return {}


def _changed(path: Path) -> int:
    """Return a number that changes with a file, for addresses of images; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _ahead(queue: Queue, job: Job | None) -> int:
    """Return how many jobs run or wait before this one."""
    if job is None or job.state != "queued":
        return 0
    return sum(one.active and one.id < job.id for one in queue.jobs())


def _scores(history: Sequence[dict[str, Any]]) -> list[Score]:
    return [
        Score(
            event["epoch"],
            event["main"],
            number.text(),
            number.span() if number.low is not None else "",
            bool(event["better"]),
        )
        for event in history
        if event["event"] == "score"
        for number in (_number(event),)
    ]


def _number(event: Mapping[str, Any]) -> Number:
    return Number(event[event["main"]], event.get("low"), event.get("high"), event.get("unit", ""))


def _epochs(history: Sequence[dict[str, Any]], recipe: Mapping[str, Any]) -> tuple[float, float | None]:
    """Return the epochs that are done, and those that are planned; None for a time limit that is not planned yet."""
    training = recipe.get("training", {})
    planned = None if training.get("seconds") else training.get("epochs")
    epoch = 0.0
    for event in history:
        kind = event["event"]
        if kind == "step":
            epoch = float(event["epoch"])
        elif kind == "planned":
            planned = event["epochs"]
        elif kind == "lengthened":
            planned = epoch + event["epochs"]
    return epoch, float(planned) if planned else None


def seconds_left(history: Sequence[dict[str, Any]], epoch: float, epochs: float | None) -> float | None:
    """Return the seconds that a training still takes, by its last steps; None where nothing tells."""
    recent = [event for event in history[-4 * RECENT :] if event["event"] == "step"][-RECENT:]
    if epochs is None or len(recent) < 2:
        return None
    done = recent[-1]["epoch"] - recent[0]["epoch"]
    took = sum(event["seconds"] for event in recent[1:])
    return took / done * max(0.0, epochs - epoch) if done > 0 else None
