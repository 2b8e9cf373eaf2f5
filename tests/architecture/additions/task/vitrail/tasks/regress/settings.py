"""How a number is learned; no torch, so that help and a wrong option cost no seconds."""

from __future__ import annotations

from typing import Literal

from vitrail.core.config import Settings


class RegressSettings(Settings):
    """What is minimised: squared or absolute errors."""

    loss: Literal["squared", "absolute"] = "squared"
