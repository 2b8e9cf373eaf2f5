"""What stands in every report: the verdict, the versions, the card."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from vitrail import __version__
from vitrail.evaluate.words import verdict
from vitrail.infer.predictor import Predictor
from vitrail.runs.card import card as _card

__all__ = ["card", "environment", "verdict"]


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, and nothing that names the machine."""
    return {
        "vitrail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def card(predictor: Predictor, report: Mapping[str, Any]) -> str:
    """Return the model card of an opened model."""
    return _card(predictor.header, report)
