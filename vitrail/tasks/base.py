"""The contract of a task: its truth, head, loss, answer, proof and worth. Nothing else knows what is predicted.

A task may have more, looked up by its name where it is of use (`getattr`):

    probe             how a linear probe learns it from frozen features (the draft)
    points(size)      the operating points that a network of it is trained for
    follow(…)         the loss of an answer against a teacher's (distillation, several costs at once)
    readable(output)  what an exported graph gives in front of the outputs, named by `readable_outputs`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.core.config import Settings as AnySettings
from vitrail.core.config import read
from vitrail.core.errors import UnknownNameError
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.head import Head, Output
from vitrail.layers.tokens import FeatureSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Target = TypeVar("Target")

FINGERPRINT = 4096
"""The most numbers of an answer that a proof holds."""


class Prediction(Protocol):
    """What a user gets for one image; it says itself in words and as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain data for JSON."""
        ...

    def __str__(self) -> str: ...


PredictionT = TypeVar("PredictionT", bound=Prediction)


class Losses(NamedTuple):
    """The parts of a loss by name, each a scalar: a mean over what `Task.weights` counts for it."""

    parts: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """Their sum, which is minimised."""
        first, *others = self.parts.values()
        for part in others:
            first = first + part
        return first


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants of an answer: from which confidence on, and how many choices."""

    threshold: float | None = None
    top: int = 5


@dataclass(frozen=True, slots=True)
class Following:
    """How an answer follows a teacher's: `match` its probabilities, its choice alone (`hard`), or softened (`soft`)."""

    kind: Literal["match", "hard", "soft"] = "match"
    temperature: float = 1.0


class Metrics(Protocol):
    """Scores gathered batch by batch; `main` names the one by which the best weights are kept (higher is better)."""

    main: str

    def update(self, output: Output, targets: Sequence[Any]) -> None:
        """Take in the outputs of one batch and their targets."""
        ...

    def state(self) -> list[Any]:
        """Return what was gathered so far, to be sent to another process."""
        ...

    def absorb(self, state: list[Any]) -> None:
        """Take in what another process gathered."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the scores by name."""
        ...


class Task(ABC, Generic[Target, PredictionT]):
    """What is predicted from features, how it is learnt, answered, proven and scored.

    A task is built from its `labels`, in order, and its own settings; both are stored with the model, so that
    `load("task", name)(labels, settings)` builds it again. `inputs` names what its networks read of a batch.
    """

    name: str
    Settings: ClassVar[type[AnySettings]] = AnySettings
    inputs: tuple[str, ...] = ("images",)
    answers: bool = True
    """False where nothing is answered about an image, as in pretraining."""
    couples: bool = False
    """True where the images of a batch learn from each other: such a batch is never cut into pieces."""
    labels: tuple[str, ...]
    settings: Any

    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        self.labels = tuple(labels)
        self.settings = read(self.Settings, settings or {}, "task settings")

    @property
    @abstractmethod
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors of an answer by name, and their axes behind the batch axis."""

    # Truth

    @abstractmethod
    def target(self, label: str) -> Target:
        """Return the target that a manifest's label stands for."""

    # Network

    @abstractmethod
    def head(self, spec: FeatureSpec) -> Head:
        """Return the module from features to the outputs of this task."""

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Return the batch as it is trained on (mixing, masking, noise); `progress` of the training is 0 … 1."""
        return batch

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the training loss of a batch: prepare it, run the network, compare. Wrappers replace it."""
        ready = self.prepare(batch, rng, progress)
        return self.loss(self.answer(network, ready, Ask()), ready.targets)

    @abstractmethod
    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the parts of the loss of a batch of outputs."""

    def weights(self, targets: Any) -> Mapping[str, float]:
        """Return over how many things each part of the loss is a mean: pixels, boxes. Others count images.

        Pieces of a step, in one process or several, weigh by these numbers. A part that counts nothing is 0.
        """
        return {}

    # Answer

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Return the network's output for a batch: one forward; sampling, windows or several prompts replace it."""
        output: Output = network(batch.inputs)
        return output

    @abstractmethod
    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[PredictionT]:
        """Return one prediction an image, in the pixels of the originals."""

    def choices(self, prediction: PredictionT) -> Sequence[str]:
        """Return the names of what an answer may be asked about, the likeliest first; by default itself alone."""
        return (str(prediction),)

    def focus(self, prediction: PredictionT, choice: str) -> PredictionT:
        """Return the prediction whose score explains one of the `choices`; UnknownNameError names the nearest."""
        if choice not in (known := self.choices(prediction)):
            raise UnknownNameError("answer", choice, known, "Leave --of out: this task has one answer.")
        return prediction

    @abstractmethod
    def score(self, output: Output, prediction: PredictionT) -> Tensor:
        """Return the number that an explanation of `prediction` explains: (b,)."""

    @abstractmethod
    def render(self, image: Image, prediction: PredictionT) -> Image:
        """Return the image with the prediction drawn on it."""

    # Proof

    @abstractmethod
    def fingerprint(self, output: Output) -> Tensor:
        """Return numbers of about 0 … 1 that a proof compares, before any selection: (b, m), m at most 4,096."""

    @abstractmethod
    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Tell of which images two outputs give the same answer: bool (b,).

        With a `tolerance` an answer also counts as the same where the first output itself holds both for equal within
        that much of a fingerprint's number.
        """

    # Worth

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return empty metrics."""

    def settle(self, output: Output, targets: Sequence[Target]) -> Mapping[str, Any]:
        """Return the settings that are learnt from validation answers once the weights stand; by default none."""
        return {}

    def deployed_task(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the task that a trained model goes on with, and its name; `name` is this one's in the recipe.

        A wrapper that only changes how is learnt gives what it wraps.
        """
        return name, self


def within(numbers: Tensor) -> Tensor:  # (b, …) -> (b, at most 4,096)
    """Return numbers of a fingerprint; of too many, the sums of equal spans, in which no change is lost."""
    flat = numbers.flatten(1)
    if flat.shape[1] <= FINGERPRINT:
        return flat
    span = -(-flat.shape[1] // FINGERPRINT)
    filled = pad(flat, (0, -flat.shape[1] % span))
    return filled.view(len(flat), -1, span).sum(-1)
