"""What every wrapper is: another task, of which only the training differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.head import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Metrics, Task

if TYPE_CHECKING:
    from PIL.Image import Image


class Wrapper(Task[Any, Any]):
    """A task that forwards everything to the one it wraps, `inner`, named by its settings `task` and `settings`."""

    inner: Task[Any, Any]

    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(labels, settings)
        self.inner = load("task", self.settings.task)(labels, self.settings.settings)
        self.labels, self.inputs = self.inner.labels, self.inner.inputs
        self.answers, self.couples = self.inner.answers, self.inner.couples

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapped task has besides: its probe, its probabilities."""
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """The names and axes of the wrapped task's outputs."""
        return self.inner.outputs

    def target(self, label: str) -> Any:
        """Return the wrapped task's target."""
        return self.inner.target(label)

    def head(self, spec: FeatureSpec) -> Head:
        """Return the wrapped task's head."""
        return self.inner.head(spec)

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Prepare as the wrapped task does."""
        return self.inner.prepare(batch, rng, progress)

    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the wrapped task's loss."""
        return self.inner.loss(output, targets)

    def weights(self, targets: Any) -> Mapping[str, float]:
        """Return what the wrapped task counts."""
        return self.inner.weights(targets)

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Answer as the wrapped task does."""
        return self.inner.answer(network, batch, ask)

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Any]:
        """Return the wrapped task's predictions."""
        return self.inner.decode(output, at, ask)

    def choices(self, prediction: Any) -> Sequence[str]:
        """Return what the wrapped task may be asked about."""
        return self.inner.choices(prediction)

    def focus(self, prediction: Any, choice: str) -> Any:
        """Return the wrapped task's prediction of one choice."""
        return self.inner.focus(prediction, choice)

    def score(self, output: Output, prediction: Any) -> Tensor:
        """Return the wrapped task's number to explain."""
        return self.inner.score(output, prediction)

    def render(self, image: Image, prediction: Any) -> Image:
        """Return the wrapped task's drawing."""
        return self.inner.render(image, prediction)

    def fingerprint(self, output: Output) -> Tensor:
        """Return the wrapped task's fingerprint."""
        return self.inner.fingerprint(output)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Tell of which images the wrapped task gives the same answer."""
        return self.inner.agree(one, other, tolerance)

    def metrics(self) -> Metrics:
        """Return the wrapped task's metrics."""
        return self.inner.metrics()

    def settle(self, output: Output, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return what the wrapped task learns from validation answers."""
        return self.inner.settle(output, targets)
