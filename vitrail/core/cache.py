"""What can be made again is kept for the next job; where nothing can be kept, the work goes on and it is said once."""

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
    """Fill a file of the cache as `replace` does; where that fails, the next job does without."""
    try:
        replace(path, write)
    except (OSError, RunError) as error:
        unkept(error.__cause__ or error)


def keep_json(path: Path, value: Any) -> None:
    """Keep a JSON file in the cache, where it can be written."""
    keep(path, lambda temporary: temporary.write_text(json.dumps(value), encoding="utf-8"))


def unkept(error: BaseException) -> None:
    """Say, once, that nothing can be kept for the next job, and why."""
    try:
        try_place(cache_dir())
    except OSError as closed:  # the reason of all such errors, whatever each was called
        error = closed
    _say(cache_dir(), getattr(error, "strerror", None) or str(error))


@lru_cache
def _say(place: Path, why: str) -> None:
    getLogger("vitrail").warning(
        "%s cannot be written (%s): the work goes on without it; what must be kept meanwhile lies in %s. "
        "VITRAIL_CACHE names another place.",
        place,
        why,
        temporary_dir(),
    )


def places(name: str) -> tuple[Path, ...]:
    """Return the folders that may hold what was kept under a name: in the cache, and where it went without one."""
    instead = temporary_dir()
    return (cache_dir() / name, *((instead / name,) if _is_ours(instead) else ()))


def place(name: str) -> Path:
    """Return a folder for what a job cannot do without: in the cache, or a temporary one where that cannot be written.

    Raises:
        RunError: neither can be written.
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
            f"Neither {cache_dir()} nor {temporary_dir()} can be written ({error.strerror}). Name a folder that can: "
            "VITRAIL_CACHE=FOLDER before the command."
        ) from error


@lru_cache(maxsize=1)
def _temporary() -> Path:
    wanted = temporary_dir()
    wanted.mkdir(mode=0o700, exist_ok=True)
    try_place(wanted)
    # Everybody may write beside it: one that somebody else has put there is not trusted.
    return wanted if _is_ours(wanted) else Path(tempfile.mkdtemp(prefix="vitrail-"))


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISDIR(status.st_mode) and mine and not (os.name == "posix" and status.st_mode & 0o022)
