"""Tensors of all processes of a training in one tensor, through which gradients flow."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.nn.functional import pad


class Gathered(NamedTuple):
    """The rows of all processes in order of their ranks, (n, …), and where those of this process begin."""

    rows: Tensor
    start: int


def gather_rows(mine: Tensor) -> Gathered:
    """Return the rows of all processes: (b, …) -> (n, …); b may differ between processes.

    In the backward pass each process gets the sum of the gradients that all processes have for its rows. With one
    process it is the tensor itself.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return Gathered(mine, 0)
    world, rank = distributed.get_world_size(), distributed.get_rank()
    if world == 1:
        return Gathered(mine, 0)
    sizes = [torch.zeros(1, dtype=torch.int64, device=mine.device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(mine)], device=mine.device))
    counts = [int(size) for size in sizes]
    parts: tuple[Tensor, ...] = _Gather.apply(mine, counts, rank)
    return Gathered(torch.cat(parts), sum(counts[:rank]))


class _Gather(torch.autograd.Function):
    """All-gather of parts with different numbers of rows; backward sums the gradients of each part over processes."""

    @staticmethod
    def forward(context: Any, mine: Tensor, counts: list[int], rank: int) -> tuple[Tensor, ...]:
        context.counts, context.rank = counts, rank
        return tuple(part[:count] for part, count in zip(_all(mine, max(counts)), counts, strict=True))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        most = max(context.counts)
        whole = torch.stack([_padded(gradient, most) for gradient in gradients])
        distributed.all_reduce(whole)
        return whole[context.rank, : context.counts[context.rank]], None, None


def _all(mine: Tensor, rows: int) -> list[Tensor]:
    """Return the part of each process, with as many rows as the largest one has."""
    whole = _padded(mine, rows).contiguous()
    parts = [torch.empty_like(whole) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, whole)
    return parts


def _padded(part: Tensor, rows: int) -> Tensor:
    return pad(part, [0, 0] * (part.ndim - 1) + [0, rows - len(part)])
