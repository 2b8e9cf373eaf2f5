"""A trained model as the target of attacks: gradients on pixels of 0 … 1, through the normalisation only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry, images_only
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import Output
from vitrail.robustness.attacks import Look
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Task

RIGHT = "right"
"""What an evaluation calls whether an image was answered correctly."""


AT_ONCE = 4 * 224 * 224
"""Pixels of the images whose gradients are computed together: a backward pass keeps every activation (a ViT-L at 224 px
about 1 GB an image)."""


class Scored(NamedTuple):
    """A batch that can be scored: network inputs (b, channels, height, width), their rows, truths and places."""

    images: Tensor
    rows: tuple[Row, ...]
    truths: tuple[Any, ...]
    places: tuple[Geometry, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images."""
        return tuple(row.id for row in self.rows)

    def some(self, which: Sequence[int]) -> Scored:
        """Return only the images at these places."""
        return Scored(
            self.images[list(which)],
            tuple(self.rows[i] for i in which),
            tuple(self.truths[i] for i in which),
            tuple(self.places[i] for i in which),
        )


def right_of(task: Task[Any, Any], output: Output, batch: Scored) -> NDArray[np.bool_]:
    """Return which images of a batch are answered correctly, as the scores of the task count them: (b,)."""
    evaluation = task.evaluation()
    evaluation.update(batch.rows, output, batch.truths, batch.places)
    right: NDArray[np.bool_] = np.asarray(evaluation.per_image()[RIGHT], dtype=bool)
    return right


def unit_pixels(images: Tensor, steps: Preprocess) -> Tensor:
    """Return network inputs as pixels before normalisation, where black is 0 and white is 1."""
    return steps.restore(images) / steps.scale


class ModelTarget:
    """The network of a predictor, in float32 as it was trained, on one batch."""

    def __init__(self, predictor: Predictor, batch: Scored) -> None:
        self.task, self.network, self.device = predictor.task, predictor.network, predictor.device
        self.batch, self.images = batch, batch.images.to(self.device)
        self.pixels = unit_pixels(self.images, predictor.preprocess)
        self.deviation = torch.tensor(predictor.preprocess.std, device=self.device).view(-1, 1, 1)

    def inputs(self, pixels: Tensor, which: Tensor) -> Tensor:
        """Return changed pixels as network inputs; unchanged pixels give exactly the inputs of the batch."""
        return self.images[which] + (pixels - self.pixels[which]) / self.deviation

    def look(self, pixels: Tensor, which: Tensor) -> Look:
        """Return the gradient of the task's loss, and which answers are still right; a few images at a time."""
        step = max(1, AT_ONCE // (pixels.shape[-2] * pixels.shape[-1]))
        parts = [
            self._look(*part)
            for part in zip(torch.split(pixels, step), torch.split(which, step), strict=True)
        ]
        return Look(torch.cat([part.gradient for part in parts]), torch.cat([part.right for part in parts]))

    def _look(self, pixels: Tensor, which: Tensor) -> Look:
        some = self.batch.some(which.tolist())
        with torch.enable_grad():
            changed = pixels.detach().requires_grad_()
            output = self.task.answer(self.network, images_only(self.inputs(changed, which)), ASK)
            losses: Tensor = self.task.losses(output, some.truths)  # type: ignore[attr-defined]
            (gradient,) = torch.autograd.grad(losses.sum(), changed)
        return Look(gradient, self._right(output, some))

    @torch.inference_mode()
    def right(self, pixels: Tensor, which: Tensor) -> Tensor:
        """Return which answers are still right: bool (b,)."""
        output = self.task.answer(self.network, images_only(self.inputs(pixels, which)), ASK)
        return self._right(output, self.batch.some(which.tolist()))

    def _right(self, output: Output, some: Scored) -> Tensor:
        found = {name: tensor.detach().float().cpu() for name, tensor in output.items()}
        return torch.from_numpy(right_of(self.task, found, some)).to(self.device)
