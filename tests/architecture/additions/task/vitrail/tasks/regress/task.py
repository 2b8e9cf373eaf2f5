"""Regression: one number an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import ImageDraw
from torch import Tensor, nn

from vitrail.data.batch import Geometry
from vitrail.layers.heads import NO_INPUTS, Head, Output, PooledHead
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task, within
from vitrail.tasks.regress.evaluation import ErrorEvaluation
from vitrail.tasks.regress.settings import RegressSettings
from vitrail.tasks.regress.targets import NumberTargets

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Value:
    """The number of one image."""

    value: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"value": round(self.value, 6)}

    def __str__(self) -> str:
        return f"{self.value:.2f}"


class ValueHead(PooledHead):
    """Pool the features and read off one number: Features -> value (b,)."""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.read_pool(Pool(spec))
        self.linear = nn.Linear(self.pool.width, 1)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the number of each image."""
        return {"value": self.linear(self.vectors(features))[:, 0]}


class Regress(NumberTargets, Task[float, Value]):
    """One number an image."""

    name = "regress"
    Settings = RegressSettings
    outputs: Mapping[str, tuple[str, ...]] = MappingProxyType({"value": ()})

    def head(self, spec: FeatureSpec) -> Head:
        """Return the head from features to (b,)."""
        return ValueHead(spec)

    def loss(self, output: Output, targets: Sequence[float]) -> Losses:
        """Return the mean error, squared or absolute."""
        wanted = torch.tensor(targets, dtype=torch.float32, device=output["value"].device)
        error = F.mse_loss if self.settings.loss == "squared" else F.l1_loss
        return Losses({self.settings.loss: error(output["value"], wanted)})

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Value]:
        """Return the number of each image."""
        return [Value(value) for value in output["value"].tolist()]

    def score(self, output: Output, prediction: Value) -> Tensor:
        """Return the number itself."""
        return output["value"]

    def render(self, image: Image, prediction: Value) -> Image:
        """Return the image with its number written into a corner."""
        ImageDraw.Draw(image).text((0, 0), str(prediction))
        return image

    def fingerprint(self, output: Output) -> Tensor:
        """Return the number, pressed into 0 … 1: (b, 1)."""
        return within(output["value"].sigmoid()[:, None])

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Tell of which images both numbers are the same but for rounding."""
        return (one["value"] - other["value"]).abs() <= 1e-3 + tolerance

    def evaluation(self) -> ErrorEvaluation:
        """Return an evaluation that has seen nothing yet."""
        return ErrorEvaluation()
