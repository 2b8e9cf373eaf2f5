"""Opens a training: devices through Accelerate, and the precision and micro-batch that are quickest here."""

from __future__ import annotations

import math
import resource
import sys
import time
import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vitrail.core.errors import SettingError
from vitrail.core.paths import compiler
from vitrail.data.augment import build
from vitrail.data.balance import sampling_weights
from vitrail.data.loader import Order, Pictures, Share, training
from vitrail.data.manifest import TRAIN, Manifest
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.runs.assemble import Network
from vitrail.runs.device import device_for, fast_bf16, hold_memory
from vitrail.runs.recipe import Recipe
from vitrail.tasks.base import Task
from vitrail.training.loop import Session, autocast
from vitrail.training.optim import Average, Schedule, adamw

UNKNOWN_TOTAL = 10**9
"""Steps of a run with a time limit until its speed is known."""

SMALLEST = 8
"""Pictures of the smallest micro-batch that is tried."""

CLEARLY = 0.9
"""One way is clearly quicker than another when it takes at most this share of its time."""

PATIENCE = 2.0
"""Seconds that one tried micro-batch may take before larger ones are left alone."""


class Measured(NamedTuple):
    """What one training step costs on this machine."""

    precision: str
    micro: int
    seconds: float  # a step of the whole batch
    memory: int  # bytes, of this process at its highest


def accelerator_for(device: str) -> Any:
    """Return Accelerate's view of the devices: one, or as many as `accelerate launch` started."""
    from accelerate import Accelerator

    on_cpu = device_for(device).type == "cpu"
    if on_cpu:
        hold_memory()
    return Accelerator(cpu=on_cpu)


def pictures_to_train_on(
    recipe: Recipe, manifest: Manifest, task: Task[Any, Any], preprocess: Preprocess
) -> Pictures:
    """Return the training pictures with the recipe's augmentation."""
    augment = build(recipe.training.augment, channels=recipe.model.channels, erasing=recipe.training.erase)
    rows = manifest.rows(TRAIN)
    if not rows:
        raise SettingError("The split leaves no picture to train on. Lower --val and --test.")
    return Pictures(rows, manifest.root, preprocess, task.target, augment)


def order_of(recipe: Recipe, pictures: Pictures) -> Order:
    """Return which pictures make up each step."""
    chances = None
    if recipe.training.balance == "sampling":
        classes = sorted({one for row in pictures.rows for one in row.labels})
        chances = tuple(sampling_weights(pictures.rows, classes).tolist())
    return Order(len(pictures), min(recipe.training.batch, len(pictures)), recipe.training.seed, chances)


def first_batch(recipe: Recipe, pictures: Pictures) -> Batch[Any]:
    """Return the pictures of the first step."""
    return next(iter(training(pictures, order_of(recipe, pictures), Share(), 0, 1, workers=0)))


def measure(
    recipe: Recipe, network: nn.Module, task: Task[Any, Any], batch: Batch[Any], device: torch.device
) -> Measured:
    """Find the precision and, on a CPU, the micro-batch with the quickest step, on a copy of the network.

    A GPU takes the whole batch: the loop halves it when memory runs out.
    """
    size = len(batch.ids)
    trial = _Trial(deepcopy(network).to(device).train(), task, batch, device)
    start = min(recipe.training.micro or SMALLEST, size)
    wanted = recipe.training.precision
    kinds = (
        ["float32", "bf16"] if wanted == "auto" and fast_bf16(device) else [wanted.replace("auto", "float32")]
    )
    trial.cost(start, kinds[0])  # the first step of all pays for set-up
    costs = {kind: trial.cost(start, kind) for kind in kinds}
    # Rounding to bf16 has to pay: a gain within the noise of measuring is none.
    precision = (
        "bf16" if costs.get("bf16", math.inf) < CLEARLY * costs.get("float32", math.inf) else "float32"
    )
    if kinds == ["bf16"]:
        precision = "bf16"
    micro, cost = start, costs[precision]
    if device.type != "cpu":
        micro = recipe.training.micro or size
    elif recipe.training.micro is None:
        micro, cost = _quickest(trial, size, {start: cost}, precision)
    return Measured(precision, micro, cost * size, _peak(device))


def _quickest(trial: _Trial, size: int, costs: dict[int, float], precision: str) -> tuple[int, float]:
    """Double the micro-batch while time allows; return the largest that is about as cheap as the cheapest."""
    micro = max(costs)
    while micro < size and costs[micro] * micro < PATIENCE:
        micro = min(size, 2 * micro)
        costs[micro] = trial.cost(micro, precision)
    best = min(costs.values())
    chosen = max(micro for micro, cost in costs.items() if cost <= best / CLEARLY)
    return chosen, costs[chosen]


@dataclass(frozen=True)
class _Trial:
    """A copy of a network to be timed on."""

    network: nn.Module
    task: Task[Any, Any]
    batch: Batch[Any]
    device: torch.device

    def cost(self, count: int, precision: str) -> float:
        """Return the seconds of one picture where `count` are computed at once; quick steps are timed twice."""
        first = self._seconds(count, precision)
        return min(first, self._seconds(count, precision) if first < 1.0 else first) / count

    def _seconds(self, count: int, precision: str) -> float:
        batch = self.batch
        piece = Batch(batch.images[:count].to(self.device), batch.targets[:count], batch.ids[:count])
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            with autocast(self.device, precision):
                loss = self.task.learn(self.network, piece, np.random.default_rng(0)).total
            torch.autograd.backward(loss)
        float(loss.detach())  # waits for a GPU
        took = time.perf_counter() - began
        self.network.zero_grad(set_to_none=True)
        return took


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def settled(recipe: Recipe, found: Measured) -> Recipe:
    """Return the recipe with what was measured written into it, so that a resume does not measure again."""
    training_settings = recipe.training.model_copy(
        update={"precision": found.precision, "micro": found.micro}
    )
    return recipe.model_copy(update={"training": training_settings})


def open_session(
    recipe: Recipe, network: Network, task: Task[Any, Any], order: Order, accelerator: Any
) -> Session:
    """Return a session at step 0, its network on the devices."""
    settings = recipe.training
    optimiser = adamw(network, settings.lr, settings.weight_decay, settings.layer_decay)
    network.to(accelerator.device)
    average = Average(network, settings.ema) if settings.ema else None
    total = UNKNOWN_TOTAL if settings.seconds else settings.epochs * order.steps
    prepared, optimiser = accelerator.prepare(_compiled(network, settings), optimiser)
    local = -(-order.batch // accelerator.num_processes)
    return Session(
        accelerator=accelerator,
        network=prepared,
        bare=network,
        task=task,
        optimiser=optimiser,
        average=average,
        order=order,
        schedule=Schedule(settings.lr, round(settings.warmup * order.steps), total),
        clip=settings.clip,
        precision=settings.precision,
        pieces=min(local, -(-local // (settings.micro or local))),
    )


def _compiled(network: nn.Module, settings: Any) -> nn.Module:
    if not settings.compile:
        return network
    if compiler() is None:
        warnings.warn(
            "There is no C++ compiler, so --compile is left out. Install g++ to have it.", stacklevel=2
        )
        return network
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled


def said(recipe: Recipe, found: Measured, parameters: int) -> str:
    """Say in a line what is about to be trained."""
    size = "×".join(map(str, recipe.model.imgsz))
    return (
        f"{recipe.model.name}: {parameters / 1e6:.2f} M parameters, {size} px, from "
        f"{'scratch' if recipe.model.weights == 'none' else recipe.model.weights}; recipe {recipe.recipe}; "
        f"{found.precision}, {found.micro} pictures at a time, {found.seconds:.2f} s a step of {recipe.training.batch}."
    )
