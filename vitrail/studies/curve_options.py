"""What a user may say of a learning curve. No heavy import: help reads this page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from vitrail.core.errors import UsageError
from vitrail.data.options import LayoutOptions
from vitrail.runs.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """Which networks a curve is drawn of, and how.

    Parameters
    ----------
    models
        networks, each a curve: vit_s16,resnet50; NAME=WEIGHTS takes its weights from a file or folder, and a weights
        file alone says whose they are
    weights
        where one network starts: auto, a file or folder, or a published name
    imgsz
        side of the network's input in pixels, or HEIGHTxWIDTH
    tune
        train on half of the images and on all in place of heads on frozen features: head, full, or scratch
    time
        with --tune: for both trainings together, such as 30m or 2h
    epochs
        with --tune: how often each training sees its images
    seed
        same seed, same test part, same redraws
    device
        auto, cpu, cuda, mps
    """

    models: str | None = None
    weights: str | None = None
    imgsz: str | None = None
    tune: Literal["head", "full", "scratch"] | None = None
    time: str | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"


def train_options(
    curve: CurveOptions, read: LayoutOptions, model: str | None, weights: str | None, time: str | None
) -> TrainOptions:
    """Return the options of a training of one of the networks, with its part of the time.

    Raises:
        UsageError: steps without a training, or nothing to start from.
    """
    if curve.tune is None and (curve.time or curve.epochs):
        raise UsageError(
            "--time and --epochs say nothing of heads on frozen features, which take seconds. Train on half of the "
            "images and on all: --tune full, or leave them out."
        )
    if curve.tune != "scratch" and weights == "none":
        raise UsageError(
            "--weights none has no features. Train from scratch: --tune scratch, or name weights."
        )
    said = {key: value for key, value in asdict(read).items() if value}
    if curve.tune == "scratch":
        weights = "none"
    return TrainOptions(
        model=model,
        weights=weights,
        imgsz=curve.imgsz,
        tune=curve.tune or "draft",
        time=time,
        epochs=curve.epochs,
        seed=curve.seed,
        device=curve.device,
        **said,
    )
