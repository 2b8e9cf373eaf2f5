"""Run a network on batches; prediction, evaluation, features, proofs and exports all use this module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vitrail.data.batch import Batch
from vitrail.layers.heads import Output
from vitrail.runs.device import autocast
from vitrail.tasks.base import Ask, Task

Compute = Callable[[Batch[Any]], Output]
"""A function from a batch on the network's device to tensors by name, batch axis first."""

ASK = Ask()
"""The default request."""


def answering(
    task: Task[Any, Any], network: nn.Module, ask: Ask = ASK, size: tuple[int, int] | None = None
) -> Compute:
    """Return a function that computes the task's output of a network for a batch.

    Images larger than `size` are predicted in windows, if the task supports it.
    """

    def compute(batch: Batch[Any]) -> Output:
        return task.answer(network, batch, ask)

    windowed = getattr(task, "in_windows", None)
    if windowed is None or size is None:
        return compute
    return lambda batch: compute(batch) if batch.images.shape[-2:] == size else windowed(compute, batch, size)


def run_network(
    compute: Compute, batches: Iterable[Batch[Any]], device: torch.device, precision: str = "float32"
) -> Iterator[tuple[Batch[Any], Output]]:
    """Yield each batch with its output, in float32 on the CPU."""
    for batch in batches:
        with torch.inference_mode(), autocast(device, precision):
            output = compute(batch.to(device))
        yield batch, {name: tensor.float().cpu() for name, tensor in output.items()}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation mode, and back to its mode before."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
