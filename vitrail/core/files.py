"""Writing that leaves the old file whole whatever happens: power cut, kill -9, full disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, TypeVar

from vitrail.core.errors import RunError

Made = TypeVar("Made")


def replace(path: Path, write: Callable[[Path], Made]) -> Made:
    """Let `write` fill a temporary file beside `path`, put it in the place of `path` in one step, return what it made.

    Raises a RunError where the disk is full or the folder may not be written; `path` is then as before.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        made = write(temporary)
        temporary.chmod(mode)  # what this user's files have; safetensors keeps its own to the user alone
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        return made
    except Exception as error:
        temporary.unlink(missing_ok=True)
        if _is_disk_trouble(error):
            raise RunError(f"{_not_written(path, error)} What stood there before is whole.") from error
        raise


def refuse_unwritable(path: Path) -> None:
    """Refuse (RunError) a file that cannot be written, before the work that would fill it."""
    if path.is_dir():
        raise RunError(f"{path} is a folder, and a file is to be written. Name a file in it.")
    above = next(one for one in path.absolute().parents if one.exists())
    try:
        with TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise RunError(_not_written(path, error)) from error


def _not_written(path: Path, error: Exception) -> str:
    """Say why a file could not be written and what to do: room helps where there is none."""
    no_room = (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error).lower()
    )
    why = getattr(error, "strerror", None) or str(error)
    way = "Make room, then try again." if no_room else "Choose another place, or make that one writable."
    return f"{path} could not be written: {why}. {way}"


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
        raise RunError(_not_written(path, error)) from error


def _last_byte(handle: BinaryIO) -> bytes:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1)
