"""A training with its progress shown: what `train`, `demo` and later verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitrail.cli.output import say
from vitrail.runs.options import TrainOptions


def train_with_progress(data: str, options: TrainOptions, resume: str | None = None) -> dict[str, Any]:
    """Train, or go on with a run, telling people what happens on standard error; return the run's report."""
    from vitrail.training.fit import resume as go_on
    from vitrail.training.fit import train
    from vitrail.training.listeners import Teller

    with Teller(say) as teller:
        run = go_on(resume, listeners=[teller]) if resume else train(data, options, listeners=[teller])
    report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
    return {"run": _relative(run.folder), **report}


def _relative(folder: Path) -> str:
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
