"""What a step costs on this machine, and the precision and micro-batch that a training takes here."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from copy import deepcopy
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.data.batch import Batch
from vitrail.infer.bf16_check import IMAGES, Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.models.factory import count_macs, describe
from vitrail.runs.device import autocast, fast_bf16
from vitrail.runs.network import Network
from vitrail.runs.recipe import Recipe
from vitrail.tasks.base import Task
from vitrail.training.loop import TrainingError
from vitrail.training.micro_batches import refuse_lone, smallest_piece

SMALLEST = 8
"""Images of the smallest micro-batch that is tried."""

CLEARLY = 0.9
"""One way is clearly quicker than another when it takes at most this share of its time."""

END = 1.0
"""The progress at which a step is measured: a task may let a part of the network rest at the beginning."""

PATIENCE = 2.0
"""Seconds that one tried micro-batch may take before larger ones are left alone, and that repeats of it may take."""

REPEATS = 5
"""How often a step is timed at most, and FEWEST how often at least: other work on the machine only makes it slower."""

FEWEST = 2

LARGER = 32
"""Images of a step that is timed beside the smallest one: what a step costs by itself weighs less there."""

PAYS = 50_000_000
"""Multiply-adds of an image from which rounding to bf16 pays.

With AVX-512 bf16 every network measured was quicker (`bench/rounding.py`): 1.4 to 1.8 times at 0.02 billion, 1.7 to 2.0
times from 0.1 to 5 billion. The smallest are trained in minutes anyway and keep their exactness.
"""


class Measured(NamedTuple):
    """What one training step costs on this machine."""

    precision: Literal["float32", "bf16"]
    micro: int
    seconds: float  # a step of the whole batch
    batch: int  # images of that step: the recipe's batch, or all there are
    memory: int  # bytes, of this process at its highest
    check: Bf16Check = Bf16Check()


def measure(
    recipe: Recipe, network: Network, task: Task[Any, Any], batch: Batch[Any], device: torch.device
) -> Measured:
    """Measure a step on a copy of the network; on a CPU also find the micro-batch with the quickest one.

    The micro-batch is kept in the cache, so that the same training computes alike the next time, whatever else the
    machine does meanwhile. A GPU takes the whole batch, or the half of it, and so on, that its memory holds.

    Raises:
        TrainingError: memory does not hold a single image.
    """
    size = len(batch.ids)
    precision = precision_for(recipe, network, device)
    least = smallest_piece(network, task, recipe.model)
    refuse_lone(least, recipe, size)
    trial = _Trial(deepcopy(network).to(device).train(), task, batch, device, least)
    check = Bf16Check()
    if precision == "bf16":
        check = check_bf16(trial.network.encoder, batch.images[:IMAGES].to(device))
        precision = "bf16" if check.faithful else "float32"
    keep_in_float32(trial.network.encoder, check.float32)
    place = _place(recipe, network, batch, precision)
    given = (
        size
        if task.couples
        else recipe.training.micro or (size if device.type != "cpu" else _remembered(place))
    )
    start = _held(trial, min(max(least, given or SMALLEST), size), precision)  # pays for set-up, too
    micro, cost = start, trial.cost(start, precision)
    if given is None:
        micro, cost = _quickest(trial, size, {start: cost}, precision)
        keep_json(place, {"micro": micro})
    return Measured(precision, micro, cost * size, size, _peak(device), check)


class Forecast(NamedTuple):
    """Seconds of an image in training: of the quickest of several steps, and of the usual one of them."""

    quickest: float
    usual: float


def forecast(
    network: Network,
    task: Task[Any, Any],
    batch: Batch[Any],
    device: torch.device,
    precision: str,
    smallest: int = 1,
) -> Forecast:
    """Time several steps of a few images on a copy of the network, each size as long as it takes little time.

    `smallest` is how many images it can learn from at once.
    """
    trial = _Trial(deepcopy(network).to(device).train(), task, batch, device, smallest)
    found: dict[int, list[float]] = {}
    first = len(batch) if task.couples else max(smallest, min(SMALLEST, len(batch)))
    least = _held(trial, first, precision)  # pays for set-up
    for count in sorted({least, max(least, min(LARGER, len(batch)))}):
        if found and min(found[least]) * count > PATIENCE:
            break
        try:
            found[count] = [took / count for took in trial.times(count, precision)]
        except torch.OutOfMemoryError:
            break
    best = min(found.values(), key=min)
    return Forecast(min(best), median(best))


def _held(trial: _Trial, micro: int, precision: str) -> int:
    """Return the micro-batch, halved until memory holds it."""
    while True:
        try:
            trial.seconds(micro, precision)
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


def precision_for(recipe: Recipe, network: Network, device: torch.device) -> Literal["float32", "bf16"]:
    """Return the precision asked for; `auto`: bf16 where the device has it and the network is large enough.

    It is a function of machine and network and never of a stopwatch: the same seed shall give the same run.
    """
    asked = recipe.training.precision
    if asked != "auto":
        return asked
    pays = fast_bf16(device) and count_macs(network.encoder, recipe.model.imgsz) >= PAYS
    return "bf16" if pays else "float32"


def _place(recipe: Recipe, network: Network, batch: Batch[Any], precision: str) -> Path:
    """Return the file that remembers the micro-batch of such a training on such a machine."""
    said = (
        describe(network.encoder),
        (recipe.task.name, recipe.training.compile, recipe.training.grad_checkpointing),
        (tuple(batch.images.shape), precision),
        (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()),
        torch.__version__,
    )
    return cache_dir() / "steps" / f"{blake2b(repr(said).encode(), digest_size=12).hexdigest()}.json"


def _remembered(place: Path) -> int | None:
    try:
        micro = int(json.loads(place.read_text(encoding="utf-8"))["micro"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing, or of another version: it is measured again
    return micro if micro > 0 else None


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

    network: Network
    task: Task[Any, Any]
    batch: Batch[Any]
    device: torch.device
    least: int  # images that it can learn from at once

    def cost(self, count: int, precision: str) -> float:
        """Return the seconds of one image where `count` are computed at once, in the quickest of several steps."""
        return min(self.times(count, precision)) / count

    def times(self, count: int, precision: str) -> list[float]:
        """Return the seconds of several steps of `count` images, fewer where they are slow."""
        times: list[float] = []
        while len(times) < FEWEST or (len(times) < REPEATS and sum(times) < PATIENCE):
            times.append(self.seconds(count, precision))
        return times

    def seconds(self, count: int, precision: str) -> float:
        """Return the seconds of one step of `count` images."""
        piece = self.batch.slice(0, count).to(self.device)
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            with autocast(self.device, precision):
                loss = self.task.training_loss(self.network, piece, np.random.default_rng(0), END).total
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


def with_measured_settings(recipe: Recipe, found: Measured) -> Recipe:
    """Return the recipe with what was decided written into it, so that a resume does not measure again."""
    training_settings = recipe.training.model_copy(
        update={
            "precision": found.precision,
            "micro": found.micro,
            "float32": found.check.float32 if found.precision == "bf16" else (),
        }
    )
    return recipe.model_copy(update={"training": training_settings})


def checked_again(recipe: Recipe, network: Network) -> tuple[Recipe, list[str]]:
    """Return the recipe of a run that goes on under other conditions, its bf16 checked there, and the lines on it.

    What stayed in float32 until now stays so, too.
    """
    if recipe.training.precision != "bf16":
        return recipe, []
    shape = (recipe.model.channels, *recipe.model.imgsz)
    check = check_bf16(network.encoder, noise(shape, next(network.parameters()).device))
    update: dict[str, Any] = {"precision": "float32", "float32": ()}
    if check.faithful:
        update = {"float32": tuple(sorted({*recipe.training.float32, *check.float32}))}
    training_settings = recipe.training.model_copy(update=update)
    return recipe.model_copy(update={"training": training_settings}), check.lines()


def summary_line(recipe: Recipe, found: Measured, parameters: int) -> str:
    """Say in a line what is about to be trained."""
    size = "×".join(map(str, recipe.model.imgsz))
    return (
        f"{recipe.model.name}: {parameters / 1e6:.2f} M parameters, {size} px, from "
        f"{'scratch' if recipe.model.weights == 'none' else recipe.model.weights}; recipe {recipe.recipe}; "
        f"{found.precision}, {found.micro} images at a time, {found.seconds:.2f} s a step "
        f"of {images_per_step(recipe, found)}."
    )


def images_per_step(recipe: Recipe, found: Measured) -> str:
    """Return how many images a step has, and why where that is not the recipe's batch."""
    if found.batch == recipe.training.batch:
        return f"{found.batch}"
    return f"{found.batch} (all there are to train on; the batch asked for is {recipe.training.batch})"
