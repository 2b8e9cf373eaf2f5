"""Training for every cost at once (SuperViT, Lin et al. 2022, arXiv:2205.11397), around any task of classes.

In one step four sub-networks learn from the same pictures: the whole one from the truth; the whole size with fewer
tokens from what the first said; a smaller size from the truth; that size with fewer tokens from what the third
said. Their gradients add up to one step of the optimiser. It works with every network that takes other sizes or
leaves tokens out, a plain ViT too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.data.sample import Batch
from vitrail.layers.elastic import Point, at_size, points, set_keep
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.tasks.wrappers.settings import ElasticClassifySettings, ElasticMultiLabelSettings


class Elastic(Task[Any, Any]):
    """The four sub-networks of a step, in place of a task's one; mixed into the task that it trains."""

    def learn(self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator) -> Losses:
        """Return the sum of the losses of up to four sub-networks on one batch.

        Which smaller size and which shares they have is drawn from `rng`; sizes or shares that the settings do
        not name are left out.
        """
        ready = self.prepare(batch, rng)
        whole = (ready.images.shape[-2], ready.images.shape[-1])
        sizes = [whole]
        if self.settings.sizes:
            sizes.append(self.settings.sizes[int(rng.integers(len(self.settings.sizes)))])
        losses: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for size in sizes:
            images = at_size(ready.images, size)
            teacher = self.at(network, images, 1.0)
            losses.append(self.loss(teacher, ready.targets).total)
            parts[str(Point(size))] = losses[-1].detach()
            if self.settings.keeps:
                keep = self.settings.keeps[int(rng.integers(len(self.settings.keeps)))]
                losses.append(self.follow(self.at(network, images, keep), teacher.detach()))
                parts[str(Point(size, keep))] = losses[-1].detach()
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return Losses(total, parts)

    def at(self, network: nn.Module, images: Tensor, keep: float) -> Tensor:
        """Return the output of the sub-network that keeps this share of its tokens."""
        set_keep(network, keep)
        try:
            return self.infer(network, images)
        finally:
            set_keep(network, 1.0)

    def follow(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Return how far an output is from the teacher's, as a loss."""
        return divergence(output, teacher)


def divergence(output: Tensor, teacher: Tensor) -> Tensor:  # (b, k), (b, k) -> ()
    """Return the mean Kullback-Leibler divergence of the output's probabilities from the teacher's."""
    told = teacher.float().softmax(-1)
    return F.kl_div(output.float().log_softmax(-1), told, reduction="batchmean")


def points_of(task: Task[Any, Any], size: tuple[int, int]) -> tuple[Point, ...]:
    """Return the points that a network of this task and input size was trained for, the cheap ones first.

    A task that was not trained for several knows the whole network alone.
    """
    if not isinstance(task, Elastic):
        return (Point(size),)
    return points((*task.settings.sizes, size), task.settings.keeps)


class ElasticClassify(Elastic, Classify):
    """One class a picture, at every cost."""

    name = "elastic"
    Reads = ElasticClassifySettings


class ElasticMultiLabel(Elastic, MultiLabel):
    """Several labels a picture, at every cost; the whole network teaches the yes or no of each label."""

    name = "elastic_multi"
    Reads = ElasticMultiLabelSettings

    def follow(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Return the cross entropy against the teacher's probability of each label."""
        return F.binary_cross_entropy_with_logits(output.float(), teacher.float().sigmoid())
