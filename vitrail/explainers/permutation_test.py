"""The shuffle test: without positions, a transformer's output does not depend on patch order (arXiv:2010.11929)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.explainers.walkthrough import Subject, answered, first_of, from_rows, patch_rows
from vitrail.layers.position import GridPosition, LearnedPosition, RelativeVectors
from vitrail.runs.network import Network
from vitrail.tasks.base import Task

SAME = 1e-9
"""Differences of logits below this, in float64, are rounding."""

LOGITS = 2
"""Number of axes of class logits: image, class. Outputs with more axes are maps."""


class Answer(NamedTuple):
    """Predictions for the original image and for its shuffled patches, and how they differ."""

    off: float  # the largest change of a logit
    spread: float  # the standard deviation of the logits of the original image
    before: str
    after: str
    followed: str = (
        "a logit"  # what is compared; "the mean token" for maps, whose cells move with the patches
    )

    @property
    def changed(self) -> bool:
        """Whether the logits changed beyond rounding."""
        return self.off > SAME

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "largest_change": self.off,
            "spread": self.spread,
            "changed": self.changed,
            "before": self.before,
            "after": self.after,
            "followed": self.followed,
        }


class Shuffled(NamedTuple):
    """The shuffled image, 0 … 255 (channels, height, width), and both measurements."""

    pixels: Tensor
    with_positions: Answer
    without: Answer


@torch.no_grad()
def shuffle_test(subject: Subject, pixels: Tensor, seed: int = 0) -> Shuffled:
    """Shuffle the patches of an image (channels, height, width), 0 … 255, and predict with and without positions.

    Both are computed in float64, so that rounding errors are far below any real change.
    """
    encoder: Any = subject.network.encoder
    patch: int = encoder.config.patch
    images = subject.preprocess.normalise(pixels)[None]
    rows = patch_rows(images, patch)
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    order = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    mixed = from_rows(rows[:, order], patch, grid)
    exact = deepcopy(subject.network).double()
    blind = without_positions(exact)
    return Shuffled(
        subject.preprocess.restore(mixed)[0],
        _answer(exact, subject.task, images, mixed),
        _answer(blind, subject.task, images, mixed),
    )


def without_positions(network: Network) -> Network:
    """Return a copy that does not know where a patch is: every position table is zero."""
    blind = deepcopy(network)
    for module in blind.modules():
        if isinstance(module, LearnedPosition | GridPosition | RelativeVectors):
            for table in module.parameters(recurse=False):
                nn.init.zeros_(table)
    return blind


def _answer(network: Network, task: Task[Any, Any], images: Tensor, mixed: Tensor) -> Answer:
    output = network({"images": torch.cat([images, mixed]).double()})
    halves = [{name: part[i : i + 1] for name, part in output.items()} for i in (0, 1)]
    was, now = (str(answered(task, half, images)) for half in halves)
    before, after = (first_of(task, half) for half in halves)
    followed = "a logit"
    if before.ndim > LOGITS:
        tokens = network.encode({"images": torch.cat([images, mixed]).double()}).tokens
        before, after = tokens.map().flatten(2).mean(-1)
        followed = "the mean token"
    return Answer(float((before - after).abs().max()), float(before.std()), was, now, followed)
