"""Looks at what a user asked for before any image is opened: a mistake is called by the name that was typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from vitrail.core.catalog import KINDS
from vitrail.core.config import Settings, fault
from vitrail.core.errors import SettingError, UnknownNameError, UsageError
from vitrail.models.factory import config_of
from vitrail.runs.device import device_for
from vitrail.runs.recipe import (
    DataSettings,
    ModelSettings,
    TrainSettings,
    compose,
    layered,
    regularization_of,
    settings_of,
)
from vitrail.runs.task_wrapping import unwrap
from vitrail.runs.train_options import TrainOptions, image_size, network_settings, seconds, task_settings
from vitrail.training.task_choice import refuse_task


def validate(options: TrainOptions) -> None:
    """Refuse options that no data set could make right.

    Raises:
        UsageError: the message names the option, and the way out.
    """
    try:
        for cls, values in _parts(options):
            if found := fault(cls, values):
                name = {"seconds": "time"}.get(found.name, found.name.partition(".")[0]).replace("_", "-")
                raise UsageError(f"--{name} {found.words}. Leave it out, and the recipe says it.")
        network_settings(options.network)
        _refuse_names(options)
        refuse_task(options)
        if options.recipe is not None:
            _refuse_recipe(options.recipe)
        if options.tune is not None:
            refuse_idle(options.tune, options)
            if options.weights is not None:
                refuse_apart(options.tune, options.weights)
    except UsageError:
        raise
    except SettingError as error:
        raise UsageError(str(error)) from error


def refuse_apart(tune: str, weights: str) -> None:
    """Refuse (SettingError) to train from scratch with weights, or anything else without."""
    if (tune == "scratch") != (weights == "none"):
        raise SettingError(
            f"--tune {tune} does not go with --weights {weights}. A draft, head or full fine-tune starts from "
            "weights; --weights none trains from scratch."
        )


OF_STEPS = (
    "epochs", "time", "batch", "micro", "lr", "layer_decay", "weight_decay", "warmup", "drop_path", "ema", "augment",
    "erase", "mixup", "cutmix", "smoothing", "loss", "teacher", "balance", "patience", "precision", "compile",
    "grad_checkpointing", "workers",
)  # fmt: skip
"""Options that say how steps are made, of which a draft has none."""


def refuse_idle(tune: str, options: TrainOptions) -> None:
    """Refuse (UsageError) options of steps for a draft, which computes a head from features at once."""
    idle = [f"--{name.replace('_', '-')}" for name in OF_STEPS if getattr(options, name) is not None]
    idle += [f"--set {name}" for name in task_settings(options.set) if name in OF_STEPS]
    if tune != "draft" or not idle:
        return
    says, one = ("says", "it") if len(idle) == 1 else ("say", "them")
    raise UsageError(
        f"{', '.join(idle)} {says} nothing to a draft, which has no training steps. Train the whole network with "
        f"--tune full, or leave {one} out."
    )


def _parts(options: TrainOptions) -> Iterator[tuple[type[Settings], dict[str, Any]]]:
    """Yield what was said, by the part of a recipe that will read it."""
    said = {key: value for key, value in asdict(options).items() if value is not None}
    read = {"imgsz": image_size(options.imgsz), "seconds": seconds(options.time)}
    said |= {key: value for key, value in read.items() if value is not None}
    for cls in (DataSettings, TrainSettings):
        yield cls, {key: said[key] for key in cls.model_fields if key in said}
    model: dict[str, Any] = {key: said[key] for key in ("imgsz", "stride", "fit", "drop_path") if key in said}
    yield ModelSettings, {**_ANY_MODEL, **model}


_ANY_MODEL: Mapping[str, Any] = MappingProxyType({"name": "any", "imgsz": (1, 1)})
"""What a recipe must say of a network, where nobody has chosen one yet."""


def _refuse_names(options: TrainOptions) -> None:
    if options.layout is not None and options.layout not in {"auto", *KINDS["layout"]}:
        known = ["auto", *KINDS["layout"]]
        raise UnknownNameError("--layout", options.layout, known, f"There are: {', '.join(known)}.")
    if options.device is not None:
        device_for(options.device)
    if options.model is not None and not {"/", ":"} & set(options.model):
        config_of(options.model)


def _refuse_recipe(recipe: str) -> None:
    """Read a whole recipe as if images and a network were chosen."""
    said = settings_of(recipe)
    said |= {"task": unwrap(said.get("task", {})).task}
    compose("scratch_small", layered({"data": {}, "model": _ANY_MODEL}, said), f"--recipe {recipe}")
    regularization_of(recipe)
