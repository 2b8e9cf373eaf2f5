"""What the environment says, where things are kept above all: the only page that reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for what can be made again (`VITRAIL_CACHE`, else `XDG_CACHE_HOME`, else ~/.cache)."""
    if own := os.environ.get("VITRAIL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "vitrail"


def runs_dir() -> Path:
    """Return the folder where runs are created (`VITRAIL_RUNS`, else ./runs)."""
    return Path(os.environ.get("VITRAIL_RUNS", "runs")).expanduser()


def hub_endpoint() -> str:
    """Return the address of the model hub or of the mirror that `HF_ENDPOINT` names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Tell whether the user asked for no network at all (`HF_HUB_OFFLINE=1`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


def speaks() -> bool:
    """Tell whether this process speaks for all: the first one, where a launcher started several (`RANK`)."""
    return os.environ.get("RANK", "0") == "0"


def compiler() -> str | None:
    """Return the C++ compiler that torch.compile uses on a CPU (`CXX`, else g++), or None."""
    return shutil.which(os.environ.get("CXX", "g++"))
