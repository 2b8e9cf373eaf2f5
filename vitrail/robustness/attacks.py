"""Attacks on pixels of 0 … 1 in the maximum norm, on any target that gives gradients.

FGSM: Goodfellow et al. 2015, arXiv:1412.6572, eq. 1. PGD: Madry et al. 2018, arXiv:1706.06083, eq. 1. Both know the
target fully, so their success bounds what smaller changes can do from below: a better attack finds more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vitrail.core.seeds import derive

STEP = 1 / 8
"""The step of PGD as a share of epsilon. It does not depend on the number of steps, so an attack with more steps
contains the one with fewer."""


class Look(NamedTuple):
    """What an attack learns at some pixels: the gradient of the loss there, and which answers are still right."""

    gradient: Tensor  # (b, channels, height, width)
    right: Tensor  # bool (b,)


class Target(Protocol):
    """What is attacked: images as `pixels` (b, channels, height, width) of 0 … 1; `which` are indices into them."""

    pixels: Tensor

    def look(self, pixels: Tensor, which: Tensor) -> Look:
        """Return gradient and success for changed pixels of some images."""
        ...

    def right(self, pixels: Tensor, which: Tensor) -> Tensor:
        """Return which answers are still right: bool (b,)."""
        ...


@dataclass(frozen=True)
class PGDSettings:
    """Steps of one attack, and how many starts: the image itself, then random points of the ball."""

    steps: int = 20
    restarts: int = 3


class Attacked(NamedTuple):
    """What an attack left: which images were still right after 0, 1, … steps, and the pixels it ended with.

    An image that was fooled once stays so, at the pixels that fooled it.
    """

    right: Tensor  # bool (steps + 1, b)
    pixels: Tensor


def within_ball(pixels: Tensor, origin: Tensor, epsilon: float) -> Tensor:
    """Return pixels moved to within `epsilon` of the origin and to 0 … 1.

    Resizing overshoots a little: an origin outside 0 … 1 is never moved farther away, nor forced back.
    """
    low = torch.maximum(origin - epsilon, origin.clamp(max=0.0))
    high = torch.minimum(origin + epsilon, origin.clamp(min=1.0))
    return torch.minimum(torch.maximum(pixels, low), high)


def fgsm(target: Target, epsilons: Sequence[float]) -> Tensor:
    """Return which images are still right after one step of each length: bool (epsilons, b)."""
    which = torch.arange(len(target.pixels), device=target.pixels.device)
    direction = target.look(target.pixels, which).gradient.sign()
    moved = (within_ball(target.pixels + epsilon * direction, target.pixels, epsilon) for epsilon in epsilons)
    return torch.stack([target.right(pixels, which) for pixels in moved])


def pgd(target: Target, epsilon: float, start: Tensor, steps: int, active: Tensor) -> Attacked:
    """Return what `steps` steps from `start` leave of the `active` images, bool (b,); the others count as fooled.

    Images that are fooled are not attacked further.
    """
    pixels, origin = within_ball(start, target.pixels, epsilon), target.pixels
    right, lasting = active.clone(), []
    for turn in range(steps + 1):
        which = right.nonzero()[:, 0]
        if len(which) and turn < steps:
            found = target.look(pixels[which], which)
            right[which] = found.right
            moved = pixels[which] + STEP * epsilon * found.gradient.sign()
            moved = within_ball(moved, origin[which], epsilon)
            pixels[which] = torch.where(found.right[:, None, None, None], moved, pixels[which])
        elif len(which):
            right[which] = target.right(pixels[which], which)
        lasting.append(right.clone())
    return Attacked(torch.stack(lasting), pixels)


def pgd_with_restarts(
    target: Target, epsilon: float, ids: Sequence[str], active: Tensor, how: PGDSettings, seed: int
) -> Attacked:
    """Return the attack with several starts, which go on with the images that the ones before did not fool.

    An image is right after t steps if it is after t steps of every start that it needed.
    """
    found = pgd(target, epsilon, target.pixels, how.steps, active)
    right, pixels = found.right, found.pixels
    for restart in range(1, how.restarts):
        left = right[-1]
        if not left.any():
            break
        start = target.pixels + epsilon * _directions(target.pixels, ids, restart, seed)
        again = pgd(target, epsilon, start, how.steps, left)
        right = right & (again.right | ~left)
        pixels = torch.where(left[:, None, None, None], again.pixels, pixels)
    return Attacked(right, pixels)


def _directions(pixels: Tensor, ids: Sequence[str], restart: int, seed: int) -> Tensor:
    """Return uniform numbers of -1 … 1, which depend only on the seed, the restart and the id of the image."""
    drawn = []
    for one in ids:
        draw = torch.Generator().manual_seed(derive(seed, "start of an attack", restart, one))
        drawn.append(2 * torch.rand(pixels.shape[1:], generator=draw) - 1)
    return torch.stack(drawn).to(pixels)
