"""What a training would be and cost, without training: samples, steps, memory, minutes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from vitrail.data.manifest import TRAIN
from vitrail.models.create import count_params
from vitrail.runs.device import device_for
from vitrail.runs.options import TrainOptions
from vitrail.training.asked import refuse
from vitrail.training.begin import begin
from vitrail.training.fit import prepared_for
from vitrail.training.listeners import clock
from vitrail.training.plan import plan
from vitrail.training.setup import first_batch, measure, pictures_to_train_on, settled


@dataclass(frozen=True)
class DryRun:
    """A plan with its measured cost."""

    notes: tuple[str, ...]
    recipe: dict[str, Any]
    parameters: int
    splits: dict[str, int]
    steps: int
    seconds_a_step: float
    seconds: float
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan in plain words."""
        model, training = self.recipe["model"], self.recipe["training"]
        size = "×".join(map(str, model["imgsz"]))
        splits = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        return [
            *self.notes,
            f"pictures  {splits}",
            f"network   {model['name']}, {self.parameters / 1e6:.2f} M parameters, input {size} px",
            f"recipe    {self.recipe['recipe']}: batch {training['batch']}, lr {training['lr']:g}, "
            f"augmentation {training['augment']}, {training['precision']}, {training['micro']} pictures at a time",
            f"steps     {self.steps:,} of {self.seconds_a_step:.2f} s (measured)",
            f"memory    {self.memory / 1e9:.1f} GB at most so far",
            f"time      about {clock(self.seconds)}",
        ]


def dry(data: str, options: TrainOptions) -> DryRun:
    """Check the data, make the plan, measure a step, and write nothing."""
    refuse(options)
    prepared = prepared_for(data, options)
    planned = plan(data, prepared, options)
    device = device_for(planned.recipe.training.device)
    torch.manual_seed(planned.recipe.training.seed)
    wanted = planned.full or planned.recipe
    start = begin(wanted, prepared.manifest.classes)
    pictures = pictures_to_train_on(wanted, prepared.manifest, start.task, start.preprocess)
    found = measure(wanted, start.network, start.task, first_batch(wanted, pictures), device)
    recipe = settled(wanted, found)
    counts = {split: sum(classes.values()) for split, classes in prepared.manifest.counts().items()}
    epoch = max(1, counts[TRAIN] // recipe.training.batch)
    limit = recipe.training.seconds
    steps = max(1, int(limit / found.seconds)) if limit else recipe.training.epochs * epoch
    return DryRun(
        notes=(*prepared.lines(), *planned.reasons),
        recipe=recipe.model_dump(mode="json"),
        parameters=count_params(start.network),
        splits=counts,
        steps=steps,
        seconds_a_step=found.seconds,
        seconds=limit or steps * found.seconds,
        memory=found.memory,
    )
