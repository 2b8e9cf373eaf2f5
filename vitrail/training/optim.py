"""Parameter groups, the learning rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def parameter_groups(
    network: nn.Module, weight_decay: float, layer_decay: float = 1.0, head_rate: float = 1.0
) -> list[dict[str, object]]:
    """Return parameter groups, each with its weight decay and its share of the learning rate.

    Matrices decay; biases, norms, tokens and position tables do not. With a layer decay γ, block i of L gets
    γ^(L − i) of the rate: the layers before the blocks get the least, the layers after them (norm, head) all of it.
    The head gets `head_rate` times its share, because a head of several layers starts random beside a trained network.
    """
    depths = _depths([name for name, _ in network.named_parameters()])
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim < 2 or _is_table(name) else weight_decay
            share = layer_decay ** (deepest - depths[name]) * (head_rate if name.startswith("head.") else 1.0)
            groups[decay, share].append(parameter)
    return [{"params": p, "weight_decay": decay, "share": share} for (decay, share), p in groups.items()]


def _depths(names: list[str]) -> dict[str, int]:
    """Return the depth of each parameter: 0 before the blocks, then one per block, the head deepest."""
    blocks = list(dict.fromkeys(m[0] for name in names if (m := _BLOCK.match(name))))
    stages = [int(m[1]) for block in blocks if (m := _STAGE.search(block))]
    depths, last = {}, 0
    for name in names:
        if block := _BLOCK.match(name):
            depths[name] = last = blocks.index(block[0]) + 1
        elif between := _BETWEEN.match(name):
            before = int(between[2]) + (between[1] == "merges")
            depths[name] = sum(stage < before for stage in stages)
        else:
            depths[name] = len(blocks) + 1 if _BEHIND.match(name) else last
    return depths


_BLOCK = re.compile(r"encoder\.(?:net\.|pyramid\.)?(?:(?:blocks|layers|stages)\.(?:\d+\.)+)+")
"""The part of a parameter's name that names its block, in our networks and in timm's."""

_STAGE = re.compile(r"stages\.(\d+)\.")
_BETWEEN = re.compile(r"encoder\.(?:pyramid\.)?(merges|embeds)\.(\d+)\.")
"""The layers between our stages: merge i comes after stage i, embedding i before it."""

_BEHIND = re.compile(
    r"(?!encoder\.)|encoder\.(?:net\.)?(?:norms?|fc_norm|norm_head|head\w*)\.|encoder\.blocks\.queries$"
)
"""The layers after all blocks: the head, the norms that belong to no block; and queries, which are a part of a head."""

_TABLE = re.compile(r"(?:^|[._])(?:table|tokens?\d*|queries|rows|cols|pos_emb(?:ed\w*)?)$")
"""Learned vectors that are added or appended: positions, relative biases, class tokens, queries; ours and timm's."""


def _is_table(name: str) -> bool:
    return _TABLE.search(name) is not None


def adamw(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    head_rate: float = 1.0,
    *,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """Return fused AdamW (arXiv:1711.05101)."""
    groups = parameter_groups(network, weight_decay, layer_decay, head_rate)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by step: linear up to `peak` over `warmup` steps, then a half cosine down to a hundredth of it."""

    peak: float
    warmup: int
    total: int
    start: int = 0  # the step from which a run was extended; it warms up again from there

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        step, total = step - self.start, self.total - self.start
        warmup = min(self.warmup, total // 2)
        if step < warmup:
            return self.peak * (step + 1) / (warmup + 1)
        through = (step - warmup) / max(1, total - warmup)
        floor = self.peak / 100
        return floor + (self.peak - floor) * (1 + math.cos(math.pi * min(1.0, through))) / 2


class Average(Generic[N]):
    """Exponential moving average of weights and buffers (Polyak), with a shorter memory at the beginning.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random initial weights soon have no influence.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.decay = decay
        self.module: N = deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the present weights of the network; integer buffers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = network.state_dict()
        pairs = [(average, now[name].detach()) for name, average in self.module.state_dict().items()]
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in moving], [b for _, b in moving], 1 - decay)
        for average, present in pairs:
            if not average.is_floating_point():
                average.copy_(present)
