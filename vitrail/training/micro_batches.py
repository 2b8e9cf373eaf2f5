"""How few images a network can learn from at once: batch norms need two numbers a channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.core.errors import SettingError
from vitrail.runs.network import Network
from vitrail.runs.recipe import ModelSettings, Recipe
from vitrail.runs.run_network import evaluating
from vitrail.tasks.base import Task
from vitrail.tasks.wrappers.elastic import points_of


def smallest_piece(network: Network, task: Task[Any, Any], model: ModelSettings) -> int:
    """Return how many images the smallest piece of a step may have: 2 where batch norms end at maps of 1 × 1, else 1.

    One image is looked at as at prediction, in the smallest size that is trained: nothing of the network changes.
    """
    frozen = not any(parameter.requires_grad for parameter in network.encoder.parameters())
    norms = [one for one in (network.head if frozen else network).modules() if isinstance(one, _BatchNorm)]
    if not norms:
        return 1
    size = min((point.size for point in points_of(task, model.imgsz)), key=lambda size: size[0] * size[1])
    image = torch.zeros(1, model.channels, *size, device=next(network.parameters()).device)
    with _lone(norms) as lone, evaluating(network), torch.no_grad():
        features = network.encode({"images": image})
        if task.inputs == ("images",):
            network.head(features, {"images": image})
    return 2 if any(lone) else 1


@contextmanager
def _lone(norms: list[_BatchNorm]) -> Iterator[list[bool]]:
    """Note of every norm that is called whether it gets a single number a channel."""
    found: list[bool] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].numel() == given[0].shape[1])

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def refuse_lone(least: int, recipe: Recipe, share: int) -> None:
    """Refuse (SettingError) to learn from one image at a time where the network cannot; `share` is of one process."""
    micro = recipe.training.micro
    if share < 1:
        raise SettingError(
            "A step has fewer images than there are processes. Give a larger --batch, or start fewer processes."
        )
    if share >= least and (micro is None or micro >= least):
        return
    size = "×".join(map(str, recipe.model.imgsz))
    what = "micro" if share >= least else "batch"
    raise SettingError(
        f"{recipe.model.name} cannot learn from one image at a time at {size} px: its batch norms would see a single "
        f"number a channel. Give --{what} {least} or more, a larger --imgsz, or a network without "
        "batch norms."
    )
