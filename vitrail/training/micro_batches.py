"""How many images a step computes at once: the fewest allowed (batch norms need two), and halving that number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.core.errors import SettingError, TrainingError
from vitrail.runs.network import Network
from vitrail.runs.recipe import ModelSettings, Recipe
from vitrail.runs.run_network import evaluating
from vitrail.tasks.base import Task
from vitrail.tasks.wrappers.elastic import points_of

if TYPE_CHECKING:
    from vitrail.training.loop import Session


def smallest_piece(network: Network, task: Task[Any, Any], model: ModelSettings) -> int:
    """Return the smallest allowed piece of a step: 2 images if a batch norm gets a 1 × 1 map, else 1.

    One image goes through the network in evaluation mode, in the smallest trained size. The network does not change.
    """
    frozen = not any(parameter.requires_grad for parameter in network.encoder.parameters())
    trained = network.head if frozen else network
    norms = [module for module in trained.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return 1
    size = min((point.size for point in points_of(task, model.imgsz)), key=lambda size: size[0] * size[1])
    image = torch.zeros(1, *network.spec.shape(size), device=next(network.parameters()).device)
    with _recorded_lone(norms) as lone, evaluating(network), torch.no_grad():
        features = network.encode({"images": image})
        if task.inputs == ("images",):
            network.head(features, {"images": image})
    return 2 if any(lone) else 1


@contextmanager
def _recorded_lone(norms: list[_BatchNorm]) -> Iterator[list[bool]]:
    """Record for every call of a norm whether its input has a single value per channel."""
    lone: list[bool] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        lone.append(inputs[0].numel() == inputs[0].shape[1])

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        yield lone
    finally:
        for hook in hooks:
            hook.remove()


def refuse_lone(least: int, recipe: Recipe, share: int) -> None:
    """Raise a SettingError if a piece has fewer images than the network needs; `share` is the batch of one process."""
    micro = recipe.training.micro
    if share < 1:
        raise SettingError(
            "A step has fewer images than there are processes. Give a larger --batch, or start fewer processes."
        )
    if share >= least and (micro is None or micro >= least):
        return
    size = "×".join(map(str, recipe.model.imgsz))
    option = "micro" if share >= least else "batch"
    raise SettingError(
        f"{recipe.model.name} cannot be trained on one image at a time at {size} px: its batch norms would get a "
        f"single value per channel. Give --{option} {least} or more, a larger --imgsz, or a network without "
        "batch norms."
    )


def halve_micro_batch(session: Session, local: int) -> None:
    """Halve the micro-batch and keep the batch. Raise a TrainingError if the smallest piece is still too large."""
    session.optimiser.zero_grad(set_to_none=True)
    most = local // session.least
    if session.accelerator.num_processes > 1 or session.pieces >= most or session.task.couples:
        raise TrainingError(
            f"Memory ran out at step {session.step} with {local // session.pieces} images at a time. "
            "Reduce that number with --micro, or choose a smaller network or a smaller --imgsz."
        ) from None
    session.pieces = min(most, session.pieces * 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
