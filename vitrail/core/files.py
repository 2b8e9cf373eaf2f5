"""Writing that leaves the old file whole whatever happens: power cut, kill -9, full disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from vitrail.core.errors import RunError


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path` in one step.

    Raises a RunError where the disk is full or the folder may not be written; `path` is then as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        if _is_disk_trouble(error):
            raise RunError(
                f"{path} could not be written: {error}. What stood there before is whole. Make room, then try again."
            ) from error
        raise


def _is_disk_trouble(error: Exception) -> bool:
    # safetensors reports a full disk as its own error type, with the system's words in the text.
    return isinstance(error, OSError) or "os error" in str(error).lower() or "I/O error" in str(error)


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there; RunError where a file stands in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path} cannot be a folder: {error.strerror}. Choose another place with --out."
        ) from None


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Fill a file of the cache as `replace` does, its folder made; where that fails, the next job does without."""
    with suppress(OSError, RunError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, write)


def keep_json(path: Path, value: Any) -> None:
    """Keep a JSON file in the cache, where it can be written."""
    keep(path, lambda temporary: temporary.write_text(json.dumps(value), encoding="utf-8"))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step; what UTF-8 cannot hold stands escaped, which JSON and YAML read back."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Add one JSON value as a line of its own, also behind a line that was cut short; RunError where it cannot be."""
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
    try:
        with path.open("ab+") as handle:
            if handle.tell() and _last_byte(handle) != b"\n":
                line = b"\n" + line
            handle.write(line)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error}. Make room, then try again.") from error


def _last_byte(handle: BinaryIO) -> bytes:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1)
