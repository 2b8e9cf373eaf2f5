"""Validate the options before reading any image. Messages use the option names that the user typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from vitrail.core.catalog import KINDS, family_of, load
from vitrail.core.config import Settings, fault
from vitrail.core.errors import SettingError, UnknownNameError, UsageError
from vitrail.layers.sentence_tower import require_transformers
from vitrail.models.factory import config_of
from vitrail.models.names import our_name
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
from vitrail.tasks.retrieve.sentence_encoder import sentence_config
from vitrail.training.network_choice import named_network
from vitrail.training.task_choice import named_task, refuse_task
from vitrail.weights.detectors import detector


def validate(options: TrainOptions) -> None:
    """Check the options that do not depend on the data.

    Raises:
        UsageError: an option is wrong. The message names it and a solution.
    """
    try:
        for cls, values in _parts(options):
            if mistake := fault(cls, values):
                name = {"seconds": "time"}.get(mistake.name, mistake.name.partition(".")[0]).replace("_", "-")
                raise UsageError(f"--{name} {mistake.words}. Leave it out to use the value of the recipe.")
        network_settings(options.network)
        _refuse_names(options)
        refuse_task(options)
        if options.recipe is not None:
            _refuse_recipe(options.recipe)
        _refuse_untrained(options)
        if options.text_tower is not None:
            sentence_config(options.text_tower)
            require_transformers()
        if options.tune is not None:
            refuse_idle(options.tune, options)
            if options.weights is not None:
                refuse_apart(options.tune, options.weights)
    except UsageError:
        raise
    except SettingError as error:
        raise UsageError(str(error)) from error


def _refuse_untrained(options: TrainOptions) -> None:
    """Raise a UsageError for a network and a task, both named, that are not trained together."""
    row = detector(options.weights) if options.weights else None
    name, task = named_network(options).name or (row.model if row else None), named_task(options)
    family = family_of(our_name(name)[0]) if name else None
    if family and task and (reason := load("architecture", family).why_not_trained(task)):
        raise UsageError(reason)


def refuse_apart(tune: str, weights: str) -> None:
    """Raise a SettingError for --tune scratch with weights, or another --tune without weights."""
    if (tune == "scratch") != (weights == "none"):
        raise SettingError(
            f"--tune {tune} does not go with --weights {weights}. A draft, head or full fine-tune starts from "
            "weights; --weights none trains from scratch."
        )


OF_STEPS = (
    "epochs", "time", "batch", "micro", "lr", "layer_decay", "weight_decay", "warmup", "drop_path", "ema", "augment",
    "erase", "mixup", "cutmix", "smoothing", "loss", "teacher", "balance", "patience", "precision",
    "memory_format", "compile", "grad_checkpointing", "workers",
)  # fmt: skip
"""Options of training steps; a draft has no steps."""


def refuse_idle(tune: str, options: TrainOptions) -> None:
    """Raise a UsageError for options of training steps with a draft, which fits a head on features without steps."""
    idle = [f"--{name.replace('_', '-')}" for name in OF_STEPS if getattr(options, name) is not None]
    idle += [f"--set {name}" for name in task_settings(options.set) if name in OF_STEPS]
    if tune != "draft" or not idle:
        return
    verb, pronoun = ("has", "it") if len(idle) == 1 else ("have", "them")
    raise UsageError(
        f"{', '.join(idle)} {verb} no effect on a draft, which has no training steps. Train the whole network with "
        f"--tune full, or leave {pronoun} out."
    )


def _parts(options: TrainOptions) -> Iterator[tuple[type[Settings], dict[str, Any]]]:
    """Yield the given options, grouped by the section of a recipe that holds them."""
    given = {key: value for key, value in asdict(options).items() if value is not None}
    parsed = {"imgsz": image_size(options.imgsz), "seconds": seconds(options.time)}
    given |= {key: value for key, value in parsed.items() if value is not None}
    for cls in (DataSettings, TrainSettings):
        yield cls, {key: given[key] for key in cls.model_fields if key in given}
    model: dict[str, Any] = {
        key: given[key] for key in ("imgsz", "stride", "fit", "drop_path") if key in given
    }
    yield ModelSettings, {**_ANY_MODEL, **model}


_ANY_MODEL: Mapping[str, Any] = MappingProxyType({"name": "any", "imgsz": (1, 1)})
"""Required model settings of a recipe, as placeholders before a network is chosen."""


def _refuse_names(options: TrainOptions) -> None:
    if options.layout is not None and options.layout not in {"auto", *KINDS["layout"]}:
        known = ["auto", *KINDS["layout"]]
        raise UnknownNameError("--layout", options.layout, known, f"There are: {', '.join(known)}.")
    if options.device is not None:
        device_for(options.device)
    if options.model is not None and not {"/", ":"} & set(options.model):
        config_of(options.model)


def _refuse_recipe(recipe: str) -> None:
    """Check a whole recipe with placeholders for the images and the network."""
    settings = settings_of(recipe)
    settings |= {"task": unwrap(settings.get("task", {})).task}
    compose("scratch_small", layered({"data": {}, "model": _ANY_MODEL}, settings), f"--recipe {recipe}")
    regularization_of(recipe)
