"""The versions that every report holds, because scores depend on them."""

from __future__ import annotations

import platform

import torch

from vitrail import __version__


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, without the name of the machine."""
    return {
        "vitrail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
