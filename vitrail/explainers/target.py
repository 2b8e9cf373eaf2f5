"""The target of an explanation: one number of a network's output, selected by a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.data.batch import Batch, images_only
from vitrail.explainers.fast_scores import BATCH, FastScores
from vitrail.explainers.masked_images import MaskedImages
from vitrail.layers.heads import Output
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.runs.network import Network
from vitrail.runs.run_network import ASK, run_network
from vitrail.tasks.base import Task


class Seen(NamedTuple):
    """The number to explain, (b,), and the features that the head read; both in the autograd graph."""

    score: Tensor
    features: Features


@dataclass(frozen=True)
class Subject:
    """A network, and the number of its output that `task.score` gives for `prediction`.

    Nothing else about the task is used: everything that has a score (a class, a pixel, a box) is explained by the same
    code. `fast` scores one image with masked cells in bf16 where that is faithful; without it, in float32.
    """

    network: Network
    task: Task[Any, Any]
    prediction: Any
    name: str
    fast: FastScores | None = None

    @property
    def spec(self) -> FeatureSpec:
        """The feature specification of the network."""
        return self.network.spec

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def look(self, pixels: Tensor, record: Recorder | None = None) -> Seen:
        """Return score and features of inputs (b, channels, height, width); `record` records attention."""
        through = _RecordingNetwork(self.network, record)
        output = self.task.answer(through, images_only(pixels.to(self.device)), ASK)
        assert through.features is not None, "task.answer must run the network that it is given"
        return Seen(self.task.score(output, self.prediction), through.features)

    def scores(self, pixels: Tensor) -> Tensor:
        """Return only the number, a few images at a time: (b, channels, height, width) -> (b,), on the CPU."""

        def compute(batch: Batch[Any]) -> Output:
            return {"score": self.task.score(self.task.answer(self.network, batch, ASK), self.prediction)}

        batches = map(images_only, torch.split(pixels, BATCH))
        return torch.cat([output["score"] for _, output in run_network(compute, batches, self.device)])

    def masked_scores(self, images: MaskedImages) -> Tensor:
        """Return the number for each masked image: (m,), on the CPU."""
        if self.fast is not None:
            return self.fast.scores(images, self.prediction)
        return torch.cat([self.scores(batch) for batch in images.batches(BATCH)])

    def in_network(self, network: Network, fast: FastScores | None = None) -> Subject:
        """Return the same target in another network."""
        return replace(self, network=network, fast=fast)


def shuffled(network: Network, seed: int) -> Network:
    """Return a copy of a network with shuffled values in every parameter.

    The distribution of the values does not change; everything learned is lost.
    """
    copy = deepcopy(network)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            order = torch.randperm(parameter.numel(), generator=draw).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy


class _RecordingNetwork(nn.Module):
    """A network as its task runs it, which passes on the recorder and keeps the features."""

    def __init__(self, network: Network, record: Recorder | None) -> None:
        super().__init__()
        self.network, self.record = network, record
        self.features: Features | None = None

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        self.features = self.network.encode(inputs, self.record, whole=True)
        return self.network.head(self.features, inputs)
