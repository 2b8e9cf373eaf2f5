"""Measure the cost of a training step on this machine, and choose the precision and the micro-batch."""

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
from vitrail.core.errors import TrainingError
from vitrail.data.batch import Batch
from vitrail.infer.bf16_check import IMAGES, Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.models.factory import count_macs, describe
from vitrail.runs.device import autocast, fast_bf16
from vitrail.runs.network import Network
from vitrail.runs.recipe import Recipe
from vitrail.tasks.base import Task
from vitrail.training.micro_batches import refuse_lone, smallest_piece

SMALLEST = 8
"""Smallest micro-batch that is tried, in images."""

CLEARLY = 0.9
"""A micro-batch is clearly faster than another when it takes at most this fraction of its time."""

END = 1.0
"""Training progress at which a step is measured: a task may leave out a part of the network at the beginning."""

PATIENCE = 2.0
"""Seconds: no larger micro-batch is tried after one that takes longer, and repeats of one stop after this time."""

REPEATS = 5
"""Most timings of a step (`FEWEST`: least). The fastest counts: other work on the machine only makes steps slower."""

FEWEST = 2

LARGER = 32
"""Images of the second step that is timed: the fixed cost of a step matters less there than in the smallest one."""

PAYS = 50_000_000
"""Smallest number of multiply-adds per image for which bf16 is used.

With AVX-512 bf16 every network measured was faster (`bench/rounding.py`): 1.4 to 1.8 times at 0.02 billion, 1.7 to 2.0
times from 0.1 to 5 billion. The smallest networks train in minutes anyway and stay in float32.
"""


class Measured(NamedTuple):
    """The measured cost of one training step on this machine."""

    precision: Literal["float32", "bf16"]
    micro: int
    seconds: float  # a step of the whole batch
    batch: int  # images of that step: the recipe's batch, or the whole data set if that is smaller
    memory: int  # peak memory of this process, in bytes
    check: Bf16Check = Bf16Check()


def measure(
    recipe: Recipe, network: Network, task: Task[Any, Any], batch: Batch[Any], device: torch.device
) -> Measured:
    """Measure a step on a copy of the network. On a CPU also find the fastest micro-batch.

    The micro-batch is cached, so that the same training computes the same next time, whatever other work the machine
    has. A GPU uses the whole batch, halved until it fits into memory.

    Raises:
        TrainingError: not even the smallest piece fits into memory.
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
    path = _cache_path(recipe, network, batch, precision)
    if task.couples:
        given: int | None = size
    elif recipe.training.micro is not None:
        given = recipe.training.micro
    else:
        given = size if device.type != "cpu" else _cached(path)
    start = _largest_in_memory(trial, min(max(least, given or SMALLEST), size), precision)  # also warms up
    micro, cost = start, trial.cost(start, precision)
    if given is None:
        micro, cost = _fastest(trial, size, {start: cost}, precision)
        keep_json(path, {"micro": micro})
    return Measured(precision, micro, cost * size, size, _peak_memory(device), check)


class Forecast(NamedTuple):
    """Training seconds per image: of the fastest and of the median of several steps."""

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
    """Time several steps of a few images on a copy of the network; a larger step only while it takes little time.

    `smallest` is the smallest number of images in a step.
    """
    trial = _Trial(deepcopy(network).to(device).train(), task, batch, device, smallest)
    timings: dict[int, list[float]] = {}
    first = len(batch) if task.couples else max(smallest, min(SMALLEST, len(batch)))
    least = _largest_in_memory(trial, first, precision)  # also warms up
    for count in sorted({least, max(least, min(LARGER, len(batch)))}):
        if timings and min(timings[least]) * count > PATIENCE:
            break
        try:
            timings[count] = [took / count for took in trial.times(count, precision)]
        except torch.OutOfMemoryError:
            break
    best = min(timings.values(), key=min)
    return Forecast(min(best), median(best))


def _largest_in_memory(trial: _Trial, micro: int, precision: str) -> int:
    """Return the micro-batch, halved until it fits into memory."""
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
    """Return the precision of the recipe; for `auto` bf16 if the device has it and the network is large enough.

    It depends on the machine and the network and never on a timing: the same seed must give the same run.
    """
    precision = recipe.training.precision
    if precision != "auto":
        return precision
    faster = fast_bf16(device) and count_macs(network.encoder, recipe.model.imgsz) >= PAYS
    return "bf16" if faster else "float32"


def _cache_path(recipe: Recipe, network: Network, batch: Batch[Any], precision: str) -> Path:
    """Return the cache file with the micro-batch of such a training on such a machine."""
    key = (
        describe(network.encoder),
        (recipe.task.name, recipe.training.compile, recipe.training.grad_checkpointing),
        (tuple(batch.images.shape), precision),
        (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()),
        torch.__version__,
    )
    return cache_dir() / "steps" / f"{blake2b(repr(key).encode(), digest_size=12).hexdigest()}.json"


def _cached(path: Path) -> int | None:
    try:
        micro = int(json.loads(path.read_text(encoding="utf-8"))["micro"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, or of another version: measure again
    return micro if micro > 0 else None


def _fastest(trial: _Trial, size: int, costs: dict[int, float], precision: str) -> tuple[int, float]:
    """Double the micro-batch while time allows. Return the largest that is not clearly slower than the fastest."""
    micro = max(costs)
    while micro < size and costs[micro] * micro < PATIENCE:
        micro = min(size, 2 * micro)
        costs[micro] = trial.cost(micro, precision)
    best = min(costs.values())
    chosen = max(micro for micro, cost in costs.items() if cost <= best / CLEARLY)
    return chosen, costs[chosen]


@dataclass(frozen=True)
class _Trial:
    """A copy of a network for timing."""

    network: Network
    task: Task[Any, Any]
    batch: Batch[Any]
    device: torch.device
    least: int  # smallest number of images in a piece

    def cost(self, count: int, precision: str) -> float:
        """Return the seconds per image of the fastest of several steps of `count` images."""
        return min(self.times(count, precision)) / count

    def times(self, count: int, precision: str) -> list[float]:
        """Return the seconds of several steps of `count` images; fewer steps if they are slow."""
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


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def with_measured_settings(recipe: Recipe, step: Measured) -> Recipe:
    """Return the recipe with the measured precision and micro-batch, so that resuming does not measure again."""
    training_settings = recipe.training.model_copy(
        update={
            "precision": step.precision,
            "micro": step.micro,
            "float32": step.check.float32 if step.precision == "bf16" else (),
        }
    )
    return recipe.model_copy(update={"training": training_settings})


def checked_again(recipe: Recipe, network: Network) -> tuple[Recipe, list[str]]:
    """Check bf16 again for a run that is resumed under other conditions; return its recipe and lines to print.

    Layers that were kept in float32 before stay in float32.
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


def summary_line(recipe: Recipe, step: Measured, parameters: int) -> str:
    """Return one line about the training that starts."""
    size = "×".join(map(str, recipe.model.imgsz))
    return (
        f"{recipe.model.name}: {parameters / 1e6:.2f} M parameters, {size} px, from "
        f"{'scratch' if recipe.model.weights == 'none' else recipe.model.weights}; recipe {recipe.recipe}; "
        f"{step.precision}, {step.micro} images at a time, {step.seconds:.2f} s a step "
        f"of {images_per_step(recipe, step)}."
    )


def images_per_step(recipe: Recipe, step: Measured) -> str:
    """Return the number of images in a step, with the reason if it is not the recipe's batch."""
    if step.batch == recipe.training.batch:
        return f"{step.batch}"
    return f"{step.batch} (all training images; the requested batch is {recipe.training.batch})"
