"""Set up a training: devices (with Accelerate), images, their order, and the session."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from vitrail.core.environment import compiler
from vitrail.core.errors import SettingError
from vitrail.data.augment import MOVING_TRUTH, build
from vitrail.data.batch import Batch
from vitrail.data.class_balance import sampling_weights
from vitrail.data.loader import ImageDataset, Order, Share, training
from vitrail.data.manifest import TRAIN, Manifest
from vitrail.data.preprocess import Preprocess
from vitrail.runs.device import device_for
from vitrail.runs.network import Network
from vitrail.runs.recipe import Recipe
from vitrail.tasks.base import Task
from vitrail.training.loop import Session
from vitrail.training.micro_batches import refuse_lone, smallest_piece
from vitrail.training.optim import Average, Schedule, adamw
from vitrail.training.step_format import layout_of


def accelerator_for(device: str) -> Any:
    """Return the accelerator for one device, or for all processes that `accelerate launch` started.

    Accelerate chooses a kind of device once per process: SettingError if another kind is requested later.
    """
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    begun = bool(PartialState._shared_state)
    wanted = device_for(device)
    if wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)
    try:
        # The other processes wait while the main process evaluates and writes the report.
        patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        accelerator = Accelerator(cpu=wanted.type == "cpu", kwargs_handlers=[patient])
    except ValueError:
        if not begun:
            raise
        accelerator = None
    if begun and (accelerator is None or accelerator.device.type != wanted.type):
        raise SettingError(
            f"This process has trained on another kind of device before and cannot change to {device!r}. "
            "Start a new process."
        )
    return accelerator


def training_images(
    recipe: Recipe, manifest: Manifest, task: Task[Any, Any], preprocess: Preprocess
) -> ImageDataset:
    """Return the training images with the recipe's augmentation."""
    augment = build(
        recipe.training.augment,
        channels=recipe.model.channels,
        raw=preprocess.raw,
        erasing=recipe.training.erase,
    )
    rows = manifest.rows(TRAIN)
    if not rows:
        raise SettingError("The split leaves no image for training. Lower --val and --test.")
    truths = task.deployed_task(recipe.task.name)[1]  # without a teacher: the loader processes do not need it
    if truths.lies_in_image and not augment.moves_truth:
        raise SettingError(
            f"The augmentation {augment.name!r} moves things in an image, and the labels of the task "
            f"{recipe.task.name} cannot follow. Choose --augment {', '.join(MOVING_TRUTH)}."
        )
    return ImageDataset(rows, manifest.root, preprocess, truths, augment)


def order_of(recipe: Recipe, images: ImageDataset) -> Order:
    """Return which images make up each step."""
    weights = None
    if recipe.training.balance == "sampling":
        weights = tuple(sampling_weights(images.rows, images.targets.strata).tolist())
    return Order(len(images), min(recipe.training.batch, len(images)), recipe.training.seed, weights)


def first_batch(recipe: Recipe, images: ImageDataset) -> Batch[Any]:
    """Return the images of the first step."""
    return next(iter(training(images, order_of(recipe, images), Share(), 0, 1, workers=0)))


def open_session(
    recipe: Recipe, network: Network, task: Task[Any, Any], order: Order, accelerator: Any
) -> Session:
    """Return a session at step 0, its network on the devices."""
    settings = recipe.training
    local = -(-order.batch // accelerator.num_processes)
    least = smallest_piece(network, task, recipe.model)
    refuse_lone(least, recipe, order.batch // accelerator.num_processes)
    optimiser = adamw(
        network,
        settings.lr,
        settings.weight_decay,
        settings.layer_decay,
        task.head_rate,
        beta2=settings.beta2,
        eps=settings.eps,
    )
    layout = layout_of(settings.memory_format)
    network.to(accelerator.device).to(memory_format=layout)
    average = Average(network, settings.ema) if settings.ema else None
    prepared, optimiser = accelerator.prepare(_compiled(network, settings), optimiser)
    return Session(
        accelerator=accelerator,
        network=prepared,
        bare=network,
        task=task,
        optimiser=optimiser,
        average=average,
        order=order,
        schedule=Schedule(settings.lr, round(settings.warmup * order.steps), settings.epochs * order.steps),
        clip=settings.clip,
        precision=settings.precision,
        layout=layout,
        pieces=1 if task.couples else min(local, -(-local // (settings.micro or local))),
        least=least,
    )


def _compiled(network: nn.Module, settings: Any) -> nn.Module:
    if not settings.compile:
        return network
    if compiler() is None:
        warnings.warn(
            "There is no C++ compiler, so --compile is ignored. Install g++ to use it.", stacklevel=2
        )
        return network
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled
