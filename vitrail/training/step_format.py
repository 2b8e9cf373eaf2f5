"""The precision and the memory format of a training step, and which of them are worth measuring."""

from __future__ import annotations

from typing import NamedTuple

import torch

from vitrail.models.factory import count_macs
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network
from vitrail.runs.recipe import MemoryFormat, Precision, Recipe

PAYS = 50_000_000
"""Smallest number of multiply-adds per image for which bf16 is used, and other formats are measured.

With AVX-512 bf16 every network measured was faster (`bench/rounding.py`): 1.4 to 1.8 times at 0.02 billion, 1.7 to 2.0
times from 0.1 to 5 billion. The smallest networks train in minutes anyway and stay in float32.
"""


class StepFormat(NamedTuple):
    """The precision of matrix products and convolutions, and the order of an image's values in memory."""

    precision: Precision
    memory_format: MemoryFormat = "contiguous"

    @property
    def layout(self) -> torch.memory_format:
        """The memory format as torch names it."""
        return layout_of(self.memory_format)

    def __str__(self) -> str:
        return self.precision + (", channels last" if self.memory_format == "channels_last" else "")


def layout_of(memory_format: str) -> torch.memory_format:
    """Return torch's memory format; `auto`, which recipes of older versions have, is contiguous."""
    return torch.channels_last if memory_format == "channels_last" else torch.contiguous_format


def precision_for(recipe: Recipe, network: Network, device: torch.device) -> Precision:
    """Return the precision of the recipe; for `auto` bf16 if the device has it and the network is large enough.

    It depends on the machine and the network and never on a timing: the same seed must give the same run.
    """
    precision = recipe.training.precision
    if precision != "auto":
        return precision
    faster = fast_bf16(device) and count_macs(network.encoder, recipe.model.imgsz) >= PAYS
    return "bf16" if faster else "float32"


def likely_formats(recipe: Recipe, network: Network, device: torch.device) -> tuple[StepFormat, ...]:
    """Return the formats that a step will most likely have: of several, those in channels-last order."""
    formats = formats_for(recipe, network, device)
    return tuple(form for form in formats if form.memory_format == "channels_last") or formats


def formats_for(recipe: Recipe, network: Network, device: torch.device) -> tuple[StepFormat, ...]:
    """Return the formats of a step to choose from, the usual one first.

    Convolutional networks that are large enough have several, because some are faster in float32 than in bf16, and
    most in channels-last order. A precision that the recipe states is used as it always was, in contiguous order
    unless the recipe states another one too.
    """
    stated = recipe.training.memory_format
    usual = StepFormat(precision_for(recipe, network, device), "contiguous" if stated == "auto" else stated)
    if (
        recipe.training.precision != "auto"
        or not network.encoder.convolutional
        or device.type not in {"cpu", "cuda"}
        or count_macs(network.encoder, recipe.model.imgsz) < PAYS
    ):
        return (usual,)
    memory_formats: tuple[MemoryFormat, ...] = (
        ("contiguous", "channels_last") if stated == "auto" else (stated,)
    )
    precisions: tuple[Precision, ...] = ("float32", "bf16") if fast_bf16(device) else ("float32",)
    every = (StepFormat(one, other) for other in memory_formats for one in precisions)
    return tuple(dict.fromkeys((usual, *every)))
