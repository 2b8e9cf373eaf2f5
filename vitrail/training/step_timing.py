"""Time a training step on a copy of a network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vitrail.core.errors import TrainingError
from vitrail.data.batch import Batch
from vitrail.infer.bf16_check import IMAGES, Bf16Check, check_bf16, keep_in_float32
from vitrail.runs.device import autocast
from vitrail.runs.network import Network
from vitrail.tasks.base import Task
from vitrail.training.step_format import StepFormat

END = 1.0
"""Training progress at which a step is measured: a task may leave out a part of the network at the beginning."""

PATIENCE = 2.0
"""Seconds: no larger micro-batch is tried after one that takes longer, and repeats of one stop after this time."""

REPEATS = 5
"""Most timings of a step (`FEWEST`: least). The fastest counts: other work on the machine only makes steps slower."""

FEWEST = 2


@dataclass(frozen=True)
class Trial:
    """A copy of a network for timing."""

    network: Network
    task: Task[Any, Any]
    batch: Batch[Any]
    device: torch.device
    least: int  # smallest number of images in a piece

    def use(self, form: StepFormat, check: Bf16Check) -> None:
        """Convert the network to a format."""
        self.network.to(memory_format=form.layout)
        keep_in_float32(self.network.encoder, check.float32 if form.precision == "bf16" else ())

    def check(self, form: StepFormat) -> Bf16Check:
        """Compare the network in this format with float32."""
        if form.precision == "float32":
            return Bf16Check()
        self.use(form, Bf16Check())
        images = self.batch.slice(0, IMAGES).to(self.device, form.layout).images
        return check_bf16(self.network.encoder, images)

    def cost(self, count: int, form: StepFormat) -> float:
        """Return the seconds per image of the fastest of several steps of `count` images."""
        return min(self.times(count, form)) / count

    def times(self, count: int, form: StepFormat) -> list[float]:
        """Return the seconds of several steps of `count` images; fewer steps if they are slow."""
        times: list[float] = []
        while len(times) < FEWEST or (len(times) < REPEATS and sum(times) < PATIENCE):
            times.append(self.seconds(count, form))
        return times

    def seconds(self, count: int, form: StepFormat) -> float:
        """Return the seconds of one step of `count` images."""
        piece = self.batch.slice(0, count).to(self.device, form.layout)
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            with autocast(self.device, form.precision):
                loss = self.task.training_loss(self.network, piece, np.random.default_rng(0), END).total
            torch.autograd.backward(loss)
        float(loss.detach())  # waits for a GPU
        took = time.perf_counter() - began
        self.network.zero_grad(set_to_none=True)
        return took


def largest_in_memory(trial: Trial, micro: int, form: StepFormat) -> int:
    """Return the micro-batch, halved until it fits into memory."""
    while True:
        try:
            trial.seconds(micro, form)
            return micro
        except torch.OutOfMemoryError:
            if micro <= trial.least or trial.task.couples:
                many = "one image at a time" if micro == 1 else f"{micro} images at once"
                raise TrainingError(
                    f"Memory does not hold the training of {many}. Choose a smaller network or --imgsz."
                ) from None
            micro = max(trial.least, micro // 2)
        trial.network.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
