"""How fast the contestants answer on this machine, measured in turn."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from vitrail.data.batch import images_only
from vitrail.infer.predictor import Predictor
from vitrail.infer.timing import in_turn

BATCH = 16
ROUNDS = 9


class Speed(NamedTuple):
    """Seconds of one image by itself, and images a second in batches of 16: float32, as PyTorch runs them."""

    one: float
    images: float


def speeds(models: Mapping[str, Path], device: str = "auto") -> dict[str, Speed]:
    """Measure models, each a run folder, in turn."""
    predictors = {name: Predictor(path, device) for name, path in models.items()}
    found = {}
    for batch in (1, BATCH):
        things = {
            name: partial(one.run, images_only(torch.zeros(batch, *one.preprocess.shape)))
            for name, one in predictors.items()
        }
        found[batch] = {name: median(times) for name, times in in_turn(things, ROUNDS).items()}
    return {name: Speed(found[1][name], BATCH / found[BATCH][name]) for name in predictors}
