"""A training step of convolutional networks in four formats, in turn, and the format that vitrail chooses: 224 px.

`python -m bench.train_formats [--only resnet50 …] [--batch 8] [--rounds 7]`: float32 and bf16, contiguous and channels
last; forward, backward and fused AdamW in one thread a core. The choice is made anew, with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from bench.pairs import in_turn, machine, ratio
from vitrail.data.batch import Batch
from vitrail.infer.bf16_check import check_bf16, keep_in_float32
from vitrail.models.factory import create_encoder
from vitrail.runs.device import autocast, device_for
from vitrail.runs.network import Network, build_network, build_task
from vitrail.runs.recipe import Recipe, compose
from vitrail.tasks.base import Task
from vitrail.training.batch_size_finder import measure
from vitrail.training.optim import adamw
from vitrail.training.step_format import StepFormat
from vitrail.training.step_timing import END

NETWORKS = ("resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny")
FORMATS = tuple(
    StepFormat(precision, memory)
    for memory in ("contiguous", "channels_last")
    for precision in ("float32", "bf16")
)
SIZE = 224


def made(name: str) -> tuple[Recipe, Network, Task]:
    """Return a recipe from scratch, its network and its task."""
    recipe = compose("cnn_scratch", {"data": {}, "model": {"name": name, "imgsz": (SIZE, SIZE)}})
    task = build_task(recipe.task.name, [str(i) for i in range(10)], recipe.task.settings)
    return recipe, build_network(create_encoder(name, image=SIZE), task), task


def step(name: str, form: StepFormat, batch: Batch, device: torch.device) -> Callable[[], None]:
    """Return a training step in a format, with the convolutions in float32 that are wrong in bf16 here."""
    _, network, task = made(name)
    network.to(device).to(memory_format=form.layout).train()
    batch = batch.to(device, form.layout)
    if form.precision == "bf16":
        keep_in_float32(network.encoder, check_bf16(network.encoder, batch.images).float32)
    optimiser = adamw(network, 1e-4, 0.05)

    def once() -> None:
        with autocast(device, form.precision):
            loss = task.training_loss(network, batch, np.random.default_rng(0), END).total
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        float(loss.detach())  # waits for a GPU

    return once


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.train_formats")
    words.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    words.add_argument("--batch", type=int, default=8)
    words.add_argument("--rounds", type=int, default=7)
    asked = words.parse_args()
    device = device_for("auto")
    print(machine())
    print(f"{device}, {asked.batch} images at {SIZE} px\n")
    print(
        "| network | " + " | ".join(map(str, FORMATS)) + " | chosen | faster than the best of the others by |"
    )
    print("|---" * (len(FORMATS) + 3) + "|")
    images = torch.randn(asked.batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        {"images": images}, [i % 10 for i in range(asked.batch)], tuple(map(str, range(asked.batch)))
    )
    for name in asked.only:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["VITRAIL_CACHE"] = cache
            recipe, network, task = made(name)
            found = measure(recipe, network, task, batch, device)
            times = in_turn({str(form): step(name, form, batch, device) for form in FORMATS}, asked.rounds)
        chosen = str(StepFormat(found.precision, found.memory_format))
        best = min((form for form in times if form != chosen), key=lambda form: median(times[form]))
        speeds = " | ".join(f"{asked.batch / median(times[str(form)]):.1f}" for form in FORMATS)
        print(f"| {name} | {speeds} | {chosen} | {ratio(times[chosen], times[best])} |", flush=True)


if __name__ == "__main__":
    main()
