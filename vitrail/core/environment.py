"""The environment variables that vitrail uses; only this module reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir


def cache_dir() -> Path:
    """Return the cache folder (`VITRAIL_CACHE`, else `XDG_CACHE_HOME`, else ~/.cache)."""
    if own := os.environ.get("VITRAIL_CACHE"):
        return expanded(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return expanded(base) / "vitrail"
    try:
        return Path.home() / ".cache" / "vitrail"
    except RuntimeError:  # a user without a name and a HOME, as in containers
        return temporary_dir()


def temporary_dir() -> Path:
    """Return this user's folder in the temporary folder (`TMPDIR`), for use when the cache is not writable."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return (
        Path(os.environ.get("TMPDIR") or ("/tmp" if os.name == "posix" else gettempdir())) / f"vitrail-{user}"
    )


def expanded(path: str | Path) -> Path:
    """Return a path with ~ expanded, if such a home folder exists."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user: it may be the name of a file
        return Path(path)


def runs_dir() -> Path:
    """Return the folder where runs are created (`VITRAIL_RUNS`, else ./runs)."""
    return expanded(os.environ.get("VITRAIL_RUNS", "runs"))


def hub_endpoint() -> str:
    """Return the address of the model hub, or of its mirror (`HF_ENDPOINT`)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Tell whether downloads are disabled (`HF_HUB_OFFLINE=1`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


def serve_token() -> str:
    """Return the token that requests to a server must send (`VITRAIL_TOKEN`), or an empty string."""
    return os.environ.get("VITRAIL_TOKEN", "").strip()


def cores() -> int:
    """Return how many cores this process may use, or the number of threads that was stated (`OMP_NUM_THREADS`)."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated):
        return int(stated)
    return max(1, min(usable_cores(), _quota()))


def usable_cores() -> int:
    """Return how many cores the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> int:
    """Return how many cores the container of this process may use; many, if nothing limits it."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(int(most) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no container, or no limit ("max")
        return 1 << 16


def is_main_process() -> bool:
    """Tell whether this is the first process of a launcher (`RANK`), or the only one."""
    return os.environ.get("RANK", "0") == "0"


def with_variables(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with some variables more, for a child process."""
    return {**os.environ, **more}


@contextmanager
def variables(stated: Mapping[str, str]) -> Iterator[None]:
    """Set some variables of this process for a library that reads them, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in stated}
    os.environ.update(stated)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def compiler() -> str | None:
    """Return the C++ compiler that torch.compile uses on a CPU (`CXX`, else g++), or None."""
    return shutil.which(os.environ.get("CXX", "g++"))
