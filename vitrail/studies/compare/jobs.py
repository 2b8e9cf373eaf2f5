"""Runs the jobs of a duel, each in a process of its own, and reads what they found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from vitrail.studies.compare.worker import Job


def done_before(folder: Path) -> dict[str, Any] | None:
    """Return what a job found before; nothing where it was not finished, or failed."""
    if not (folder / "result.json").is_file():
        return None
    found = read_result(folder)
    return None if "failed" in found else found


def result_of_file(path: Path) -> dict[str, Any]:
    """Return what the job of a result.json found."""
    return read_result(path.parent)


def read_result(folder: Path) -> dict[str, Any]:
    """Return what the job of a folder found."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def run_job(job: Job) -> dict[str, Any]:
    """Run a job to its end in a process that Ctrl-C does not reach by itself; a signal that ends it is its failure."""
    folder, path = Path(job.folder), job.write()
    (folder / "result.json").unlink(missing_ok=True)
    words = [sys.executable, "-m", "vitrail.studies.compare.worker", str(path)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if (folder / "result.json").is_file():
        return read_result(folder)
    if code < 0:
        memory = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return {"failed": f"its process was ended by {signal.Signals(-code).name}{memory}"}
    return {"failed": f"its process ended with exit code {code}; see {folder / 'log.txt'}"}
