"""Plan a training and measure its cost without running it: images, steps, memory and time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitrail.core.seeds import of_64_bits
from vitrail.core.text import clock, span
from vitrail.data.batch import Batch
from vitrail.data.manifest import TRAIN, VAL
from vitrail.data.split import can_be_trained
from vitrail.models.factory import count_params
from vitrail.runs.device import device_for
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.adapted_weights import refuse_guess
from vitrail.training.batch_size_finder import forecast, images_per_step, measure, with_measured_settings
from vitrail.training.fit import prepared_for
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.micro_batches import smallest_piece
from vitrail.training.resolve_recipe import plan
from vitrail.training.resumption import Place, resumed_manifest
from vitrail.training.session import first_batch, order_of, training_images
from vitrail.training.setting_origins import table
from vitrail.training.step_format import StepFormat
from vitrail.training.time_budget import Budget
from vitrail.training.validate_options import validate

FOLLOWS = "A draft is made first, without training the network; this is the training after it (--tune full)."
"""Note of a dry run whose lines are about the full fine-tune and not about the draft itself."""


@dataclass(frozen=True)
class DryRun:
    """A plan with its measured cost."""

    notes: tuple[str, ...]
    origins: dict[str, dict[str, Any]]
    recipe: dict[str, Any]
    parameters: int
    splits: dict[str, int]
    steps: int
    epochs: float
    seconds_a_step: float
    batch: str
    seconds: float
    seconds_usual: float  # with as much other work on the machine as now
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan as text lines."""
        model, training = self.recipe["model"], self.recipe["training"]
        size = "×".join(map(str, model["imgsz"]))
        splits = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        return [
            *self.notes,
            f"images  {splits}",
            f"network   {model['name']}, {self.parameters / 1e6:.2f} M parameters, input {size} px",
            f"recipe    {self.recipe['recipe']}: lr {training['lr']:g}, augmentation {training['augment']}, "
            f"{StepFormat(training['precision'], training['memory_format'])}, {training['micro']} images at a time",
            f"batch     {self.batch} images",
            f"steps     {self.steps:,} of {self.seconds_a_step:.2f} s (measured), {self.epochs:.1f} epochs",
            f"memory    {self.memory / 1e9:.1f} GB at most, for this command up to its first step",
            "settings, by their source; later lines override earlier ones:",
            *table(self.origins),
            f"time      {span(self.seconds, self.seconds_usual)}{self._short()}",
        ]

    def _short(self) -> str:
        limit = self.recipe["training"]["seconds"]
        if not limit or self.epochs >= 1:
            return ""
        return f"; --time {limit:g}s is too short for one epoch ({clock(self.seconds / self.epochs)})"


def dry(data: str, options: TrainOptions) -> DryRun:
    """Check the data, make the plan and measure one step. Nothing is written."""
    validate(options)
    prepared = prepared_for(data, options)
    refuse_guess(prepared, options)
    planned = plan(data, prepared, options)
    if planned.full is None:
        can_be_trained(prepared.manifest, prepared.targets.strata)
    device = device_for(planned.recipe.training.device)
    torch.manual_seed(of_64_bits(planned.recipe.training.seed))
    wanted = planned.full or planned.recipe
    start = build_from_recipe(wanted, prepared.manifest.truth, prepared.manifest.rows(TRAIN))
    if wanted.training.tune == "head":
        start.network.encoder.requires_grad_(False)
    images = training_images(wanted, prepared.manifest, start.task, start.preprocess)
    cost = measure(wanted, start.network, start.task, first_batch(wanted, images), device)
    recipe = with_measured_settings(wanted, cost)
    manifest = prepared.manifest
    counts = {split: len(manifest.rows(split)) for split in manifest.counts(prepared.targets)}
    epoch = order_of(recipe, images).steps
    scoring = Budget.guessed(
        recipe.training.seconds or 0.0, epoch, cost.seconds, counts.get(VAL, 0) / cost.batch
    )
    limited = recipe.training.seconds is not None
    steps = max(1, scoring.more(0.0)) if limited else recipe.training.epochs * epoch
    seconds = steps * cost.seconds + math.ceil(steps / epoch) * scoring.scoring
    follows = [FOLLOWS] if planned.full else []
    noise = 1.0 if limited else _noise(recipe, start, first_batch(recipe, images))
    return DryRun(
        notes=(*prepared.lines(), *planned.reasons, *start.lines, *cost.check.lines(), *follows),
        origins={source: dict(settings) for source, settings in planned.origins.items()},
        recipe=recipe.model_dump(mode="json"),
        parameters=count_params(start.network),
        splits=counts,
        steps=steps,
        seconds_a_step=cost.seconds,
        epochs=steps / epoch,
        batch=images_per_step(recipe, cost),
        seconds=seconds,
        seconds_usual=seconds * noise,
        memory=cost.memory,
    )


def _noise(recipe: Recipe, start: InitialState, batch: Batch[Any]) -> float:
    """Return the time of the median step divided by that of the fastest; other work on the machine raises it."""
    device = device_for(recipe.training.device)
    smallest = smallest_piece(start.network, start.task, recipe.model)
    measured = recipe.training
    # The recipe is measured: no setting is left to be chosen.
    form = StepFormat(
        "bf16" if measured.precision == "bf16" else "float32",
        "channels_last" if measured.memory_format == "channels_last" else "contiguous",
    )
    times = forecast(start.network, start.task, batch, device, form, smallest)
    return times.usual / times.quickest


@dataclass(frozen=True)
class DryResume:
    """The remaining steps and time of a run that was stopped or killed."""

    run: str
    step: int
    steps: int
    seconds_a_step: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the remaining steps and time as text lines."""
        if not self.steps:
            return [f"run       {self.run} is finished, at step {self.step:,}. To train longer: --epochs"]
        return [
            f"run       {self.run} continues from step {self.step:,}",
            f"steps     {self.steps:,} of {self.seconds_a_step:.2f} s (mean so far)",
            f"time      about {clock(self.seconds)}",
        ]


def dry_resume(folder: str | Path, more: int = 0, where: Place = Place()) -> DryResume:
    """Estimate the rest of a run, or `more` additional epochs of it. Nothing is written.

    Raises:
        DataError: images changed or are missing, as when resuming.
    """
    run = open_run(folder)
    recipe = run.recipe()
    counters = run.load_state()[1]
    manifest = resumed_manifest(run, counters["root"], replace(where, epochs=more)).manifest
    step = counters["step"]
    rows = len(manifest.rows(TRAIN))
    epoch = max(1, rows // min(rows, recipe.training.batch))
    steps = more * epoch if more else counters["schedule"]["total"] - step
    cost = counters["seconds"] / max(1, step)
    return DryResume(str(folder), step, steps, cost, steps * cost)
