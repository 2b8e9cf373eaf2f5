"""Train with progress messages, for `train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.cli.output import say
from vitrail.core.environment import is_main_process
from vitrail.core.errors import UndecidedError
from vitrail.core.text import command
from vitrail.runs.train_options import TrainOptions

if TYPE_CHECKING:
    from vitrail.runs.run import Run


def train_with_progress(
    data: str, options: TrainOptions, resume: str | None = None, changed: bool = False
) -> dict[str, Any]:
    """Train, or resume a run, with messages on standard error; return the run's report.

    With `resume`, `data` is the current folder of its images, "" if they were not moved; `changed` accepts changed
    images. If the report cannot be made, the error is returned in its place ("unreported"); the model is kept.

    If weights are not available, a person at a terminal is offered alternatives; a script gets the error.
    """
    from vitrail.runs.run import ReportError
    from vitrail.training.fit import resume as go_on
    from vitrail.training.fit import train
    from vitrail.training.progress import Teller
    from vitrail.training.resumption import Place
    from vitrail.weights.download import WeightsUnavailableError

    try:
        with Teller(say) as teller:
            more = options.epochs or 0
            if resume and not more and _finished(resume):
                say(
                    f"{resume} is already finished. For N more epochs: "
                    f"{command('train', '--resume', resume, '--epochs', 'N')}"
                )
            listeners = [teller] if is_main_process() else []
            run = (
                go_on(resume, more=more, where=Place(data, changed), listeners=listeners)
                if resume
                else train(data, options, listeners=listeners)
            )
    except UndecidedError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()) or (way := _chosen(error)) is None:
            raise
        name, value = way
        chosen = replace(options, labels=value) if name == "labels" else replace(options, layout=value)
        return train_with_progress(data, chosen)
    except WeightsUnavailableError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()) or not _from_scratch_instead(error.ways):
            raise
        return train_with_progress(data, replace(options, weights="none", tune="scratch"))
    except ReportError as error:
        lost = {"finished": _finished(str(error.run.folder)), "verdict": str(error), "unreported": True}
        return {"run": _relative(error.run.folder), **lost, **_stopped(error.run)}
    return {"run": _relative(run.folder), **_report(run)}


def _finished(folder: str) -> bool:
    """Return whether the last event of a run is "finished"."""
    from vitrail.runs.run import Run

    return any(event["event"] == "finished" for event in Run(Path(folder)).history()[-1:])


def _report(run: Run) -> dict[str, Any]:
    """Return a run's report, and where it was stopped; a minimal report if there is no model."""
    report: dict[str, Any] = {
        "finished": False,
        "verdict": "There is no model and no score yet: the first epoch is not finished.",
    }
    if run.report_path.is_file():
        report = json.loads(run.report_path.read_text(encoding="utf-8"))
    return report | _stopped(run)


def _stopped(run: Run) -> dict[str, Any]:
    """Return where a run was stopped; empty if it is finished."""
    last = next((e for e in reversed(run.history()) if e["event"] in {"stopped", "finished"}), None)
    stopped = last is not None and last["event"] == "stopped"
    return {"stopped": {"step": last["step"], "total": last["total"]}} if last and stopped else {}


def _chosen(error: UndecidedError) -> tuple[str, str] | None:
    """Ask the user to choose an interpretation; None if there was no valid choice."""
    say(error.question)
    for number, (what, (name, value)) in enumerate(error.ways, 1):
        say(f"  {number}. {what} (--{name} {value})")
    sys.stderr.write(f"Type 1 to {len(error.ways)}, or Enter to stop: ")
    sys.stderr.flush()
    answer = input().strip()
    return error.ways[int(answer) - 1][1] if answer in map(str, range(1, len(error.ways) + 1)) else None


def _from_scratch_instead(ways: Sequence[str]) -> bool:
    """Print the numbered alternatives; only training from scratch can start at once."""
    say("No weights are available now. You can:")
    for number, way in enumerate(ways, 1):
        say(f"  {number}. {way}")
    sys.stderr.write(f"Type {len(ways)} to start from random weights now, or Enter to stop: ")
    sys.stderr.flush()
    answer = input().strip()  # a prompt of input() would go to standard output, which is reserved for results
    return answer == str(len(ways))


def _relative(folder: Path) -> str:
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
