"""What a command of the studio printed, in one sentence."""

from __future__ import annotations

from pathlib import Path


def last_words(log: Path) -> str:
    """Return the last sentence that a job printed, without a traceback."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "It ended, and its output is gone."
    spoken = [line.strip() for line in lines if line.strip()]
    if any(line.startswith("Traceback") for line in spoken):
        return f"It ended with an error that vitrail did not expect ({spoken[-1]}). The whole output: {log.name}."
    return spoken[-1] if spoken else "It ended without a word; the system may have ended it to free memory."


def says(log: Path) -> str:
    """Return the last sentence of a job that runs; empty before it has printed one."""
    try:
        return last_words(log) if log.stat().st_size else ""
    except OSError:
        return ""


def unwatched_end(log: Path) -> str:
    """Return what is known of a job that ended before its first saved state, with nobody to see its exit code."""
    said = says(log)
    why = "It ended before its first saved state, while no studio watched. Train again."
    return f"{why} Its last line: {said}" if said else why
