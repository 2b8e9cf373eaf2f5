"""Make images of a class: from noise alone, or from an image with noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.core.seeds import derive
from vitrail.tasks.generate.diffusion import (
    Chain,
    Estimate,
    Predict,
    Schedule,
    guided,
    linear_schedule,
    respace,
    sample,
    spaced_times,
)
from vitrail.tasks.generate.settings import STEPS, GenerateSettings, Sampler

TIME, LABEL = "time", "label"
"""Inputs besides the images: the noise level (b,), and the class (b,), int64; one more number stands for none."""

NOISE, SPREAD = "noise", "spread"
"""Outputs: the noise, and how the variance of a step is interpolated, both (b, channels, height, width)."""


@dataclass(frozen=True, slots=True)
class Making:
    """How images are made: steps, sampler, guidance, and for those from an image how much of it is replaced (0 … 1)."""

    steps: int
    sampler: Sampler
    guidance: float
    strength: float = 0.5

    @classmethod
    def of(cls, settings: GenerateSettings) -> Making:
        """Return the way that the settings of a task state."""
        return cls(settings.steps, settings.sampler, settings.guidance)

    def changed(self, stated: Mapping[str, Any]) -> Making:
        """Return the way with other values by name, of which None changes nothing.

        Raises:
            SettingError: a value is out of range.
        """
        made = replace(self, **{name: value for name, value in stated.items() if value is not None})
        if not 2 <= made.steps <= STEPS:
            raise SettingError(
                f"An image is made in 2 to {STEPS} steps, not {made.steps}. Use for example 50."
            )
        if made.sampler not in ("ddpm", "ddim"):
            raise SettingError(f"There is no sampler called {made.sampler!r}. Choose ddpm or ddim.")
        if not 0 <= made.guidance < float("inf"):
            raise SettingError(f"Guidance is a number from 0, not {made.guidance:g}. Use for example 2.")
        if not 0 < made.strength <= 1:
            raise SettingError(
                f"A strength is above 0 and at most 1, not {made.strength:g}. Use for example 0.5."
            )
        return made

    def schedule(self) -> Schedule:
        """Return the steps that are computed, with the official spacing."""
        return respace(linear_schedule(STEPS), spaced_times(STEPS, (self.steps,)))


class Noises:
    """The noise of each image, from a generator of its own, so that it follows from seed and number alone."""

    def __init__(
        self, seed: int, numbers: Sequence[int], shape: tuple[int, ...], device: torch.device
    ) -> None:
        self.shape, self.device = shape, device
        self.drawn = [torch.Generator().manual_seed(derive(seed, "made", number)) for number in numbers]

    def __call__(self) -> Tensor:
        """Return the next noise of all images: (b, *shape)."""
        return torch.stack([torch.randn(self.shape, generator=one) for one in self.drawn]).to(self.device)


def made(
    network: nn.Module,
    labels: Tensor,
    none: int,
    noises: Noises,
    making: Making,
    start: Tensor,
    *,
    clip: bool = True,
) -> Tensor:
    """Return images of the classes `labels` (b,), made from `start` (c, h, w) with noise: (b, c, h, w), about -1 to 1.

    At a strength of 1 nothing of `start` counts. `none` is the number that stands for no class. With `clip` the images
    are kept within -1 and 1 on the way, as pixels are; latents are not.
    """
    schedule = making.schedule()
    chain = Chain(schedule, making.sampler, clip)
    predict = guided(_told(network, labels), _told(network, torch.full_like(labels, none)), making.guidance)
    first, x = schedule.first_step(making.strength), noises()
    if first < len(schedule):
        x = schedule.noisy(start.to(x.device).expand_as(x), torch.full_like(labels, first - 1), x)
    return deque(sample(predict, chain, x, noises, first=first), 1)[0]


def _told(network: nn.Module, labels: Tensor) -> Predict:
    """Return what the network tells of images of these classes."""

    def predict(noisy: Tensor, time: Tensor) -> Estimate:
        output = network({"images": noisy, TIME: time, LABEL: labels})
        return Estimate(output[NOISE].float(), output[SPREAD].float())

    return predict
