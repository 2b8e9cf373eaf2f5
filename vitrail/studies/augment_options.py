"""What a user may say of generated training images. No heavy import: help reads this page."""

from __future__ import annotations

from dataclasses import dataclass, fields

from vitrail.core.errors import UsageError
from vitrail.data.options import LayoutOptions
from vitrail.runs.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How many images are generated, and how the two kinds of trainings are made.

    Parameters
    ----------
    n
        images to generate; by default as many as the class lacks to have as many as a usual one
    seeds
        trainings with the generated images, and as many without
    model
        network of these trainings, as for train
    weights
        where they start, as for train
    recipe
        named recipe or YAML file of them
    epochs
        of each of them
    imgsz
        side of their input in pixels
    batch
        images a step
    seed
        draws the split, the generated images and the trainings
    device
        auto, cpu, cuda, mps
    """

    n: int | None = None
    seeds: int = 3
    model: str | None = None
    weights: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    imgsz: str | None = None
    batch: int | None = None
    seed: int = 0
    device: str = "auto"


SHARED = ("model", "weights", "recipe", "epochs", "imgsz", "batch", "seed", "device")
"""Options that are those of every training."""


def train_options(wanted: AugmentOptions, read: LayoutOptions) -> TrainOptions:
    """Return the options of the trainings; UsageError for numbers that make no comparison."""
    if wanted.n is not None and wanted.n < 1:
        raise UsageError(f"--n {wanted.n} generates nothing. Give 1 or more.")
    if wanted.seeds < 2:
        raise UsageError(
            f"--seeds {wanted.seeds} cannot tell a gain from the chance of one training. Give 2 or more."
        )
    stated = {field.name: getattr(read, field.name) for field in fields(LayoutOptions)}
    values = {name: getattr(wanted, name) for name in SHARED} | {k: v for k, v in stated.items() if v}
    return TrainOptions(**values)
