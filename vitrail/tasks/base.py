"""The six seams of a task: head, loss, evaluation, decode, score, render. Nothing else knows what is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from vitrail.core.errors import UnknownNameError
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation, Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row

Target = TypeVar("Target")


class Prediction(Protocol):
    """What a user gets for one picture; it says itself in words and as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain data for JSON."""
        ...

    def __str__(self) -> str: ...


PredictionT = TypeVar("PredictionT", bound=Prediction)


class Losses(NamedTuple):
    """The loss that is minimised, and its parts by name, each a scalar."""

    total: Tensor
    parts: Mapping[str, Tensor] = {}


class Task(ABC, Generic[Target, PredictionT]):
    """What is predicted from features, how it is learnt, scored, said and drawn.

    A task is built from its `labels`, in order, and its own settings; both are stored with the model, so that
    `load("task", name)(labels, settings)` builds it again.
    """

    name: str
    labels: tuple[str, ...]
    settings: Any
    exports: Exports | None = None
    """What hubs call it, where they have a name."""

    columns: tuple[str, ...] = ()
    """The columns of a table of answers that are there even where no picture could be answered."""

    @property
    def probe(self) -> Probe | None:
        """How frozen features learn this task; a task without has no draft."""
        return None

    @abstractmethod
    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None: ...

    @abstractmethod
    def head(self, spec: FeatureSpec) -> nn.Module:
        """Return the module from Features to the output of this task."""

    @abstractmethod
    def target(self, label: str) -> Target:
        """Return the target that a manifest's label stands for."""

    @abstractmethod
    def loss(self, output: Tensor, targets: Sequence[Target]) -> Losses:
        """Return the loss of a batch of outputs."""

    @abstractmethod
    def evaluation(self) -> Evaluation:
        """Return an evaluation that has seen nothing yet: it scores answers while training and in reports."""

    @abstractmethod
    def decode(self, output: Tensor, at: Sequence[Geometry]) -> list[PredictionT]:
        """Return one prediction a picture, in the pixels of the originals."""

    @abstractmethod
    def score(self, output: Tensor, prediction: PredictionT) -> Tensor:
        """Return the number an explanation of `prediction` explains: (b,)."""

    @abstractmethod
    def render(self, image: Image, prediction: PredictionT) -> Image:
        """Return the picture with the prediction drawn on it."""

    def accepts(self, row: Row) -> None:
        """Raise a DataError where the truth of a row is none that this task can be scored by."""
        self.target(row.label)

    def choices(self, prediction: PredictionT) -> Sequence[str]:
        """Return the names of what an answer may be asked about, the likeliest first; by default itself alone."""
        return (str(prediction),)

    def about(self, prediction: PredictionT, choice: str) -> PredictionT:
        """Return the prediction whose score explains one of the `choices`; UnknownNameError names the nearest."""
        if choice not in (known := self.choices(prediction)):
            raise UnknownNameError("answer", choice, known, "Leave --of out: this task has one answer.")
        return prediction

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the numbers in 0 … 1 that a proof compares: (b, …)."""
        return output.softmax(dim=-1)

    def prepare(self, batch: Batch[Any], rng: np.random.Generator) -> Batch[Any]:
        """Return the batch as it is trained on (mixing, masking, noise); by default as it is."""
        return batch

    def learn(self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator) -> Losses:
        """Return the training loss of a batch: prepare it, run the network, compare."""
        ready = self.prepare(batch, rng)
        return self.loss(self.infer(network, ready.images), ready.targets)

    def kept(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the task that a trained model goes on with, and its name; `name` is this one's in the recipe.

        A wrapper that only changes how is learnt gives what it wraps.
        """
        return name, self

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the network's output for normalised images (b, channels, height, width)."""
        output: Tensor = network(images)
        return output
