"""Elastic training for several costs (SuperViT, Lin et al. 2022, arXiv:2205.11397), for any task with `follow`.

One step trains four sub-networks on the same images: the full size on the truth; the full size with fewer tokens on
the output of the first; a smaller size on the truth; the smaller size with fewer tokens on the output of the third.
Their gradients are added to one step of the optimiser. It works with every network that accepts other input sizes or
can drop tokens, a plain ViT too.
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
    """Another task, trained for all operating points at once; the model file stores this task."""

    name = "elastic"
    Settings = ElasticSettings

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        if type(self.inner).training_loss is not Task.training_loss or not hasattr(self.inner, "follow"):
            raise SettingError(
                f"The task {self.settings.task!r} does not support a teacher, which elastic training needs for the "
                "cheaper points. Remove --elastic."
            )

    def points(self, size: tuple[int, int]) -> tuple[OperatingPoint, ...]:
        """Return the operating points for this input size, the cheapest first."""
        return points((*self.settings.sizes, size), self.settings.keeps)

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the summed losses of up to four sub-networks on one batch.

        The smaller size and the shares of kept tokens are drawn from `rng`; without sizes or shares in the settings,
        those sub-networks are left out.
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
                fixed = {name: tensor.detach() for name, tensor in teacher.items()}
                followed = self.inner.follow(output, fixed, Following())  # type: ignore[attr-defined]
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
    """Elastic multi-label training under the name that earlier model files and recipes use."""

    name = "elastic_multilabel"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, {"task": "multilabel", **(settings or {})})


def points_of(task: Task[Any, Any], size: tuple[int, int]) -> tuple[OperatingPoint, ...]:
    """Return the operating points of this task and input size, the cheapest first.

    A task without elastic training has one point: the whole network.
    """
    several = getattr(task, "points", None)
    return (OperatingPoint(size),) if several is None else several(size)
