"""What a user may say of a comparison. No heavy import: help reads this page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from vitrail.core.errors import UsageError
from vitrail.data.options import DEFAULTS as LAYOUT
from vitrail.data.options import LayoutOptions
from vitrail.robustness.options import DEFAULTS as ROBUSTNESS
from vitrail.robustness.options import RobustnessOptions
from vitrail.runs.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Which networks are compared, and how.

    Parameters
    ----------
    models
        networks, with commas between: names (see: vitrail models), NAME=WEIGHTS, or files of weights
    time
        of all trainings together, such as 2h; 30m by default
    epochs
        of every training, in place of a time; then the learning rates are the recipes'
    rounds
        folds, or seeds on a given split; by default 10 or 5, fewer where the time asks for it
    weights
        where all start: none (from scratch), or auto: published weights where there are some
    tune
        what is trained: full, head, scratch, or draft (heads on frozen features, in seconds)
    imgsz
        side of the input in pixels, for all
    batch
        images a step, for all
    recipe
        named recipe or YAML file, for all; by default each family has its own
    augment
        augmentation of all; by default that of the first network
    mixup
        strength of Mixup for all
    cutmix
        strength of CutMix for all
    own_augmentation
        leave each family its own augmentation; then nothing is said of the architectures
    region
        points up to which a difference does not matter
    seed
        draws the folds and the trainings
    device
        auto, cpu, cuda, mps
    """

    models: str | None = None
    time: str | None = None
    epochs: int | None = None
    rounds: int | None = None
    weights: str | None = None
    tune: Literal["draft", "head", "full", "scratch"] | None = None
    imgsz: str | None = None
    batch: int | None = None
    recipe: str | None = None
    augment: (
        Literal[
            "none", "light", "flip_crop", "trivial", "rand", "three", "scene", "flip_scale", "turns",
            "large_crop", "square",
        ]
        | None
    ) = None  # fmt: skip
    mixup: float | None = None
    cutmix: float | None = None
    own_augmentation: bool = False
    region: float = 1.0
    seed: int = 0
    device: str = "auto"


class RunsAsked(NamedTuple):
    """Trained models to compare on the same test images, or on those of `source`; `robustness` measures that too."""

    models: Sequence[str]
    source: str = ""
    read: LayoutOptions = LAYOUT
    wanted: CompareOptions = CompareOptions()
    robustness: RobustnessOptions = ROBUSTNESS


SHARED = ("weights", "tune", "imgsz", "batch", "recipe", "augment", "mixup", "cutmix", "seed", "device")
"""Options that are those of every training."""


def shared_options(wanted: CompareOptions, read: LayoutOptions) -> TrainOptions:
    """Return what all trainings share, as training options."""
    stated = {field.name: getattr(read, field.name) for field in fields(LayoutOptions)}
    values = {name: getattr(wanted, name) for name in SHARED} | {
        k: v for k, v in stated.items() if v is not None
    }
    return TrainOptions(**values)


def refuse_idle(wanted: CompareOptions, runs: bool) -> None:
    """Refuse (UsageError) options that change nothing."""
    draft = wanted.tune == "draft"
    idle = ["time", "epochs", "rounds"] if runs else ["time", "epochs"] if draft else []
    what = "trained models" if runs else "frozen networks"
    if names := [f"--{name}" for name in idle if getattr(wanted, name)]:
        raise UsageError(
            f"{' and '.join(names)} changes nothing for {what}, which are not trained here. Leave it out."
        )
    if wanted.time and wanted.epochs:
        raise UsageError("--time and --epochs both say how long trainings are. Give one of them.")
    if runs and wanted.models:
        raise UsageError("--models trains networks and --runs takes trained ones. Give one of them.")
