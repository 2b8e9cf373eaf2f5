"""Nothing broken is kept: a network whose weights or whose answer are not finite is refused before it is written."""

from __future__ import annotations

import math

import torch

from vitrail.runs.proof import answer
from vitrail.training.begin import Start


def broken(start: Start) -> str | None:
    """Return in words what of a network is not finite, its weights or its answer to the proof picture, or None."""
    for name, weight in start.network.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            return f"the weights {name} are not finite"
    if not all(map(math.isfinite, answer(start.network, start.task, start.preprocess))):
        return "the network's answer to its proof picture is not finite"
    return None
