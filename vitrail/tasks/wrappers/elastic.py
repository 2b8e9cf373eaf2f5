"""Training for every cost at once (SuperViT, Lin et al. 2022, arXiv:2205.11397), around any task that can follow.

In one step four sub-networks learn from the same images: the whole one from the truth; the whole size with fewer
tokens from what the first said; a smaller size from the truth; that size with fewer tokens from what the third
said. Their gradients add up to one step of the optimiser. It works with every network that takes other sizes or
leaves tokens out, a plain ViT too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.truth import Truth
from vitrail.layers.elastic import OperatingPoint, at_size, points, set_keep
from vitrail.layers.heads import Output
from vitrail.tasks.base import AT, Ask, Following, Losses, Task
from vitrail.tasks.wrappers.settings import ElasticSettings
from vitrail.tasks.wrappers.wrapper import Wrapper


class Elastic(Wrapper):
    """Another task, trained for all operating points at once; the trained model goes on with this one."""

    name = "elastic"
    Settings = ElasticSettings

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        if type(self.inner).training_loss is not Task.training_loss or not hasattr(self.inner, "follow"):
            raise SettingError(
                f"The task {self.settings.task!r} has no way to follow a teacher, which cheaper points learn from, or "
                "learns in a way of its own. Leave --elastic out."
            )

    def points(self, size: tuple[int, int]) -> tuple[OperatingPoint, ...]:
        """Return the points that a network of this input size was trained for, the cheap ones first."""
        return points((*self.settings.sizes, size), self.settings.keeps)

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the summed losses of up to four sub-networks on one batch.

        Which smaller size and which shares they have is drawn from `rng`; sizes or shares that the settings do
        not name are left out.
        """
        ready = self.inner.prepare(batch, rng, progress)
        whole = (ready.images.shape[-2], ready.images.shape[-1])
        sizes = [whole]
        if self.settings.sizes:
            sizes.append(self.settings.sizes[int(rng.integers(len(self.settings.sizes)))])
        parts: dict[str, Tensor] = {}
        for size in sizes:
            sized = ready.with_images(at_size(ready.images, size), ready.targets)
            teacher = self._answer_at(network, sized, 1.0)
            for name, part in self.inner.loss(teacher, ready.targets).parts.items():
                parts[f"{name}{AT}{OperatingPoint(size)}"] = part
            if self.settings.keeps:
                keep = self.settings.keeps[int(rng.integers(len(self.settings.keeps)))]
                output = self._answer_at(network, sized, keep)
                told = {name: tensor.detach() for name, tensor in teacher.items()}
                followed = self.inner.follow(output, told, Following())  # type: ignore[attr-defined]
                parts[f"follow{AT}{OperatingPoint(size, keep)}"] = followed
        return Losses(parts)

    def _answer_at(self, network: nn.Module, batch: Batch[Any], keep: float) -> Output:
        """Return the output of the sub-network that keeps this share of its tokens."""
        set_keep(network, keep)
        try:
            return self.inner.answer(network, batch, Ask())
        finally:
            set_keep(network, 1.0)


class ElasticMultiLabel(Elastic):
    """Elastic training of several labels by the name that earlier model files and recipes give it."""

    name = "elastic_multilabel"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, {"task": "multilabel", **(settings or {})})


def points_of(task: Task[Any, Any], size: tuple[int, int]) -> tuple[OperatingPoint, ...]:
    """Return the points that a network of this task and input size was trained for, the cheap ones first.

    A task that was not trained for several knows the whole network alone.
    """
    several = getattr(task, "points", None)
    return (OperatingPoint(size),) if several is None else several(size)
