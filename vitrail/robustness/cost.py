"""What a measurement of robustness costs, told before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from vitrail.core.text import clock, span
from vitrail.data.manifest import Row
from vitrail.infer.predictor import Predictor
from vitrail.robustness.attack_target import ModelTarget
from vitrail.robustness.measurement import RobustnessSettings, answers_of, batches_of, grid_of

TRIED = 2
"""Images on which the speed of this machine is measured."""


def gradients(how: RobustnessSettings) -> int:
    """Return the largest number of gradients that the attacks on one image take."""
    return 1 + len(how.epsilons) * how.pgd.restarts * how.pgd.steps


def cost_of(predictor: Predictor, rows: Sequence[Row], root: Path, how: RobustnessSettings) -> str:
    """Return a sentence with the predictions and the time that the measurement takes on this machine."""
    some = next(batches_of(predictor, rows[:TRIED], root))
    grid = how.grid or grid_of([predictor])
    versions = len(answers_of(predictor, some, grid, how.seed))
    whole = _seconds(lambda: answers_of(predictor, some, grid, how.seed)) / len(some.rows)
    words = f"{len(rows) * versions:,} predictions, {span(len(rows) * whole, len(rows) * whole)}"
    attacked = min(len(rows), how.attacked)
    if not attacked:
        return f"Robustness on {len(rows):,} images: {words}."
    target, which = ModelTarget(predictor, some), torch.arange(len(some.rows))
    once = _seconds(lambda: target.look(target.pixels, which)) / len(some.rows)
    least, most = (clock(attacked * number * once) for number in (2, gradients(how)))
    return (
        f"Robustness on {len(rows):,} images: {words}. Attacks on {attacked:,} of them: at most "
        f"{attacked * gradients(how):,} gradients, {least} to {most}; an image that is fooled is not attacked further."
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
