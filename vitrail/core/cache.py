"""A cache on disk for results that can be computed again. If it is not writable, the work continues with a warning."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any

from vitrail.core.environment import cache_dir, temporary_dir
from vitrail.core.errors import RunError
from vitrail.core.files import replace, try_place


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a cache file like `replace`; a failure is only a warning."""
    try:
        replace(path, write)
    except (OSError, RunError) as error:
        unkept(error.__cause__ or error)


def keep_json(path: Path, value: Any) -> None:
    """Write a JSON file to the cache, if it is writable."""
    keep(path, lambda temporary: temporary.write_text(json.dumps(value), encoding="utf-8"))


def unkept(error: BaseException) -> None:
    """Warn once that the cache cannot be written, with the reason."""
    try:
        try_place(cache_dir())
    except OSError as cause:  # the same cause for all such errors, so that the warning appears once
        error = cause
    _warn_once(cache_dir(), getattr(error, "strerror", None) or str(error))


@lru_cache
def _warn_once(place: Path, why: str) -> None:
    getLogger("vitrail").warning(
        "%s cannot be written (%s): the work continues without a cache; files that are needed now are in %s. "
        "Set VITRAIL_CACHE to another folder.",
        place,
        why,
        temporary_dir(),
    )


def places(name: str) -> tuple[Path, ...]:
    """Return the folders that may hold cached files of this name: in the cache, and in the temporary folder."""
    instead = temporary_dir()
    return (cache_dir() / name, *((instead / name,) if _is_ours(instead) else ()))


def place(name: str) -> Path:
    """Return a folder for files that a command needs: in the cache, or in a temporary folder if it is not writable.

    Raises:
        RunError: neither is writable.
    """
    wanted = cache_dir() / name
    try:
        try_place(wanted)
        return wanted
    except OSError as error:
        unkept(error)
    try:
        return _temporary() / name
    except OSError as error:
        raise RunError(
            f"Neither {cache_dir()} nor {temporary_dir()} can be written ({error.strerror}). Name a writable folder: "
            "VITRAIL_CACHE=FOLDER before the command."
        ) from error


@lru_cache(maxsize=1)
def _temporary() -> Path:
    wanted = temporary_dir()
    wanted.mkdir(mode=0o700, exist_ok=True)
    try_place(wanted)
    # All users can write to the temporary folder: a folder of another user is not trusted.
    return wanted if _is_ours(wanted) else Path(tempfile.mkdtemp(prefix="vitrail-"))


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISDIR(status.st_mode) and mine and not (os.name == "posix" and status.st_mode & 0o022)
