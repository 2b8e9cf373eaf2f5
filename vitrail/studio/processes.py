"""Processes that outlive the studio, known by their number and start time."""

from __future__ import annotations

import psutil

SAME_START = 0.05
"""Seconds by which two statements of the start time of one process may differ."""


def running(pid: int | None, started: float | None) -> psutil.Process | None:
    """Return a process if it still runs: the same number may belong to another process by now."""
    if pid is None or started is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < SAME_START
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
