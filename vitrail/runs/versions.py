"""What stands in every report beside the scores: the versions that they depend on."""

from __future__ import annotations

import platform

import torch

from vitrail import __version__


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, and nothing that names the machine."""
    return {
        "vitrail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
