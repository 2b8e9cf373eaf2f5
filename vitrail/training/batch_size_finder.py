"""Measure the cost of a training step on this machine, and choose its format and the micro-batch."""

from __future__ import annotations

import json
import platform
import resource
import sys
from copy import deepcopy
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.data.batch import Batch, in_layout
from vitrail.infer.bf16_check import Bf16Check, check_bf16, noise
from vitrail.models.factory import describe
from vitrail.runs.network import Network
from vitrail.runs.recipe import MemoryFormat, Precision, Recipe
from vitrail.tasks.base import Task
from vitrail.training.micro_batches import refuse_lone, smallest_piece
from vitrail.training.step_format import StepFormat, formats_for, layout_of
from vitrail.training.step_timing import FEWEST, PATIENCE, REPEATS, Trial, largest_in_memory

SMALLEST = 8
"""Smallest micro-batch that is tried, in images."""

CLEARLY = 0.9
"""A micro-batch or a format is clearly faster than another when it takes at most this fraction of its time."""

LARGER = 32
"""Images of the second step that is timed: the fixed cost of a step matters less there than in the smallest one."""


class Measured(NamedTuple):
    """The measured cost of one training step on this machine."""

    precision: Precision
    micro: int
    seconds: float  # a step of the whole batch
    batch: int  # images of that step: the recipe's batch, or the whole data set if that is smaller
    memory: int  # peak memory of this process, in bytes
    check: Bf16Check = Bf16Check()
    memory_format: MemoryFormat = "contiguous"


def measure(
    recipe: Recipe, network: Network, task: Task[Any, Any], batch: Batch[Any], device: torch.device
) -> Measured:
    """Measure a step on a copy of the network. On a CPU also find the fastest micro-batch.

    For convolutional networks whose recipe leaves the precision open, the fastest format of a step is measured too.
    Both choices are cached and written into the recipe of the run, so that the same training computes the same next
    time, whatever other work the machine has. Only without this cache may it compute in another format.
    A GPU uses the whole batch, halved until it fits into memory.

    Raises:
        TrainingError: not even the smallest piece fits into memory.
    """
    size = len(batch.ids)
    formats = formats_for(recipe, network, device)
    least = smallest_piece(network, task, recipe.model)
    refuse_lone(least, recipe, size)
    trial = Trial(deepcopy(network).to(device).train(), task, batch, device, least)
    checks = _faithful(trial, formats)
    form = _fastest_format(recipe, trial, checks)
    trial.use(form, checks[form])
    path = _cache_path(recipe, network, batch, str(form), device)
    if task.couples:
        given: int | None = size
    elif recipe.training.micro is not None:
        given = recipe.training.micro
    else:
        given = size if device.type != "cpu" else _cached(path)
    start = largest_in_memory(trial, min(max(least, given or SMALLEST), size), form)  # also warms up
    micro, cost = start, trial.cost(start, form)
    if given is None:
        micro, cost = _fastest(trial, size, {start: cost}, form)
        keep_json(path, {"micro": micro})
    return Measured(
        form.precision, micro, cost * size, size, _peak_memory(device), checks[form], form.memory_format
    )


def _faithful(trial: Trial, formats: tuple[StepFormat, ...]) -> dict[StepFormat, Bf16Check]:
    """Return the formats with their bf16 check; float32 takes the place of bf16 that does not agree with it."""
    checks: dict[StepFormat, Bf16Check] = {}
    for form in formats:
        check = trial.check(form)
        if check.faithful:
            checks.setdefault(form, check)
        else:
            checks[form._replace(precision="float32")] = check
    return checks


def _fastest_format(recipe: Recipe, trial: Trial, checks: dict[StepFormat, Bf16Check]) -> StepFormat:
    """Return the fastest format of a step, cached or measured; the first unless another one is clearly faster."""
    first = next(iter(checks))
    if len(checks) == 1:
        return first
    path = _cache_path(recipe, trial.network, trial.batch, " | ".join(map(str, checks)), trial.device)
    cached = _cached_format(path)
    if cached in checks:
        return cached
    trial.use(first, checks[first])
    size = len(trial.batch)
    count = min(size, max(trial.least, SMALLEST)) if trial.device.type == "cpu" else size
    if trial.task.couples:
        count = size
    seconds = _compare(trial, checks, largest_in_memory(trial, count, first))
    best = min(seconds, key=lambda form: seconds[form])
    chosen = best if seconds[best] <= CLEARLY * seconds[first] else first
    keep_json(path, chosen._asdict())
    return chosen


def _compare(trial: Trial, checks: dict[StepFormat, Bf16Check], count: int) -> dict[StepFormat, float]:
    """Return the seconds of the fastest of several steps of `count` images in each format.

    The formats take turns, so that other work on the machine slows them alike. The first round warms up.
    """
    times: dict[StepFormat, list[float]] = {form: [] for form in checks}
    for turn in range(REPEATS + 1):
        for form, check in checks.items():
            trial.use(form, check)
            try:
                took = trial.seconds(count, form)
            except torch.OutOfMemoryError:
                trial.network.zero_grad(set_to_none=True)
                took = float("inf")
            if turn:
                times[form].append(took)
        if turn >= FEWEST and sum(map(sum, times.values())) >= PATIENCE * len(times):
            break
    return {form: min(found) for form, found in times.items()}


class Forecast(NamedTuple):
    """Training seconds per image: of the fastest and of the median of several steps."""

    quickest: float
    usual: float


def forecast(
    network: Network,
    task: Task[Any, Any],
    batch: Batch[Any],
    device: torch.device,
    form: StepFormat,
    smallest: int = 1,
) -> Forecast:
    """Time several steps of a few images on a copy of the network; a larger step only while it takes little time.

    `smallest` is the smallest number of images in a step.
    """
    trial = Trial(
        deepcopy(network).to(device).to(memory_format=form.layout).train(), task, batch, device, smallest
    )
    timings: dict[int, list[float]] = {}
    first = len(batch) if task.couples else max(smallest, min(SMALLEST, len(batch)))
    least = largest_in_memory(trial, first, form)  # also warms up
    for count in sorted({least, max(least, min(LARGER, len(batch)))}):
        if timings and min(timings[least]) * count > PATIENCE:
            break
        try:
            timings[count] = [took / count for took in trial.times(count, form)]
        except torch.OutOfMemoryError:
            break
    best = min(timings.values(), key=min)
    return Forecast(min(best), median(best))


def _cache_path(
    recipe: Recipe, network: Network, batch: Batch[Any], formats: str, device: torch.device
) -> Path:
    """Return the cache file with what was measured of such a training in these formats on such a machine."""
    key = (
        describe(network.encoder),
        (recipe.task.name, recipe.training.compile, recipe.training.grad_checkpointing),
        (tuple(batch.images.shape), formats),
        (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()),
        (torch.__version__, *_gpu(device)),
    )
    return cache_dir() / "steps" / f"{blake2b(repr(key).encode(), digest_size=12).hexdigest()}.json"


def _gpu(device: torch.device) -> tuple[str, ...]:
    return (torch.cuda.get_device_name(device),) if device.type == "cuda" else ()


def _cached(path: Path) -> int | None:
    try:
        micro = int(json.loads(path.read_text(encoding="utf-8"))["micro"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, or of another version: measure again
    return micro if micro > 0 else None


def _cached_format(path: Path) -> StepFormat | None:
    try:
        return StepFormat(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # missing, or of another version: measure again


def _fastest(trial: Trial, size: int, costs: dict[int, float], form: StepFormat) -> tuple[int, float]:
    """Double the micro-batch while time allows. Return the largest that is not clearly slower than the fastest."""
    micro = max(costs)
    while micro < size and costs[micro] * micro < PATIENCE:
        micro = min(size, 2 * micro)
        costs[micro] = trial.cost(micro, form)
    best = min(costs.values())
    chosen = max(micro for micro, cost in costs.items() if cost <= best / CLEARLY)
    return chosen, costs[chosen]


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def with_measured_settings(recipe: Recipe, step: Measured) -> Recipe:
    """Return the recipe with the measured format and micro-batch, so that resuming does not measure again."""
    training_settings = recipe.training.model_copy(
        update={
            "precision": step.precision,
            "memory_format": step.memory_format,
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
    shape = network.spec.shape(recipe.model.imgsz)
    layout = layout_of(recipe.training.memory_format)
    network.to(memory_format=layout)
    images = in_layout(noise(shape, next(network.parameters()).device), layout)
    check = check_bf16(network.encoder, images)
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
        f"{StepFormat(step.precision, step.memory_format)}, {step.micro} images at a time, {step.seconds:.2f} s a step "
        f"of {images_per_step(recipe, step)}."
    )


def repeatable(device: torch.device) -> list[str]:
    """Return a line for devices on which the same seed does not give the same bits."""
    if device.type == "cpu":
        return []
    return ["The same seed gives nearly the same run on this device: its attention adds in no fixed order."]


def images_per_step(recipe: Recipe, step: Measured) -> str:
    """Return the number of images in a step, with the reason if it is not the recipe's batch."""
    if step.batch == recipe.training.batch:
        return f"{step.batch}"
    return f"{step.batch} (all training images; the requested batch is {recipe.training.batch})"
