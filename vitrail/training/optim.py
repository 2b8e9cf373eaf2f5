"""Parameter groups, the learning rate over time, and the moving average of the weights."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return two groups: matrices decay; biases, norms, tokens and position tables do not."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (free if parameter.ndim < 2 or _is_table(name) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _is_table(name: str) -> bool:
    last = name.rsplit(".", 2)
    return any(
        part.startswith(("pos", "cls", "token", "prefix", "dist", "relative", "register")) for part in last
    )


def adamw(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (arXiv:1711.05101) in its fused form."""
    groups = parameter_groups(network, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by step: a line up to `peak` over `warmup` steps, then half a cosine down to a hundredth."""

    peak: float
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warmup = min(self.warmup, self.total // 2)
        if step < warmup:
            return self.peak * (step + 1) / (warmup + 1)
        through = (step - warmup) / max(1, self.total - warmup)
        floor = self.peak / 100
        return floor + (self.peak - floor) * (1 + math.cos(math.pi * min(1.0, through))) / 2


class Average(Generic[N]):
    """Exponential moving average of weights and buffers (Polyak); young averages forget faster.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the first random weights are soon gone.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.decay = decay
        self.module: N = deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network's present weights; counters are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = network.state_dict()
        pairs = [(average, now[name].detach()) for name, average in self.module.state_dict().items()]
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in moving], [b for _, b in moving], 1 - decay)
        for average, present in pairs:
            if not average.is_floating_point():
                average.copy_(present)
