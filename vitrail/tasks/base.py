"""The contract of a task: its truth, head, loss, answer, proof and worth. Nothing else knows what is predicted.

A task may have more, looked up by its name where it is of use (`getattr`):

    points(size)      the operating points that a network of it is trained for
    follow(…)         the loss of an answer against a teacher's (distillation, several costs at once)
    taught_by(…)      takes the teacher that the training has opened
    readable(output)  what an exported graph gives in front of the outputs, named by `readable_outputs`
    for_large(…)      settings for images much larger than the input, and lines that say so
    in_windows(…)     the answer of images larger than the input, from those of their windows
    in_image(…)     the same in the pixels of the image itself (`picture_outputs`): maps brought onto it
    compare(…)        the image with truth, answer and their difference drawn on it, for pages
    glance(…)         the same small, truth beside answer, of an output while a training runs
    temperature       what an exported folder of another library divides logits by; `problem` is its name for the task

A prediction may have `rows()`, the lines of a table of answers, and `files()`, bytes by the end of a file's name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.core.config import Settings as AnySettings
from vitrail.core.config import read
from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation, Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row

Target = TypeVar("Target")

AT = " at "
"""Between the name of a loss part and what it was computed at; `Task.weights` counts for the name in front."""

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


def asked_of(task: Task[Any, Any], threshold: float | None) -> Ask:
    """Return what is asked of a task; SettingError where it takes no threshold, or not this one."""
    if threshold is None:
        return Ask()
    if not task.takes_threshold:
        raise SettingError(
            f"The task {task.name} takes no threshold: its answers tell their probabilities. Leave --threshold out."
        )
    if not 0 <= threshold <= 1:
        raise SettingError(f"A threshold is a probability from 0 to 1, got {threshold:g}.")
    return Ask(threshold=threshold)


class Asked(NamedTuple):
    """A part of an image that is asked about: (left, top, right, bottom) in pixels of the original.

    `choice` is the whole question by its name, `answer` what is answered there, `heading` what an explanation shows,
    and `others` the same question of the other classes, the likeliest there first.
    """

    box: tuple[float, float, float, float]
    choice: str
    answer: str
    heading: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """How an answer follows a teacher's: `match` its probabilities, its choice alone (`hard`), or softened (`soft`)."""

    kind: Literal["match", "hard", "soft"] = "match"
    temperature: float = 1.0


class Task(Targets[Target], Generic[Target, PredictionT]):
    """What is predicted from features, how it is learned, answered, proven and scored.

    A task is built from the header of its truths, or the names in it alone, and its own settings; both are stored with
    the model, so that `load("task", name)(truth, settings)` builds it again. `inputs` names what its networks read of
    a batch.
    """

    name: str
    Settings: ClassVar[type[AnySettings]] = AnySettings
    inputs: tuple[str, ...] = ("images",)
    answers: bool = True
    """False where nothing is answered about an image, as in pretraining."""
    couples: bool = False
    """True where the images of a batch learn from each other: such a batch is never cut into pieces."""
    head_rate: float = 1.0
    """The learning rate of the head, in rates of what stands before it."""
    measures: bool = False
    """True where an answer states lengths or areas: the size of a pixel is then read from the file of each image."""
    takes_threshold: bool = False
    """True where `decode` answers nothing below the threshold of an `Ask`."""
    agreement: str = "top answers are the same"
    """What is said of answers that agree (`agree`)."""
    kind: ClassVar[str] = "class"
    """The kind of truth that names alone stand for."""
    settings: Any
    exports: Exports | None = None
    """What hubs call it, where they have a name."""

    columns: tuple[str, ...] = ()
    """The columns of a table of answers that are there even where no image could be answered."""

    @property
    def probe(self) -> Probe | None:
        """How frozen features learn this task; a task without has no draft."""
        return None

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth if isinstance(truth, Truth) else Truth(self.kind, tuple(truth)))
        self.settings = read(self.Settings, settings or {}, "task settings")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the outputs."""
        return self.truth.names

    @property
    @abstractmethod
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors of an answer by name, and their axes behind the batch axis."""

    # Network

    @abstractmethod
    def head(self, spec: FeatureSpec) -> Head:
        """Return the module from features to the outputs of this task."""

    def steps(self, preprocess: Preprocess) -> Preprocess:
        """Return how this task wants images prepared: by default as they are."""
        return preprocess

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Return the batch as it is trained on (mixing, masking, noise); `progress` of the training is 0 … 1.

        It changes nothing that `weights` counts: a step counts before it prepares.
        """
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

    def accepts(self, row: Row) -> None:
        """Raise a DataError where a truth that this task does not take would make its score mean something else."""

    def choices(self, prediction: PredictionT) -> Sequence[str]:
        """Return the names of what an answer may be asked about, the likeliest first; by default itself alone."""
        return (str(prediction),)

    def asked(self, prediction: PredictionT, output: Output) -> Asked | None:
        """Return the part of the image that a prediction in `focus` is about; None where that is the whole."""
        return None

    def focus(self, prediction: PredictionT, choice: str) -> PredictionT:
        """Return the prediction whose score explains one of the `choices`; UnknownNameError names the nearest."""
        if choice not in (known := self.choices(prediction)):
            raise UnknownNameError(
                "answer", choice, known, "Leave --of out: this task explains its whole answer."
            )
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
    def evaluation(self) -> Evaluation:
        """Return an evaluation that has seen nothing yet: it scores answers while training and in reports."""

    def deployed_task(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the task that a trained model goes on with, and its name; `name` is this one's in the recipe.

        A wrapper that only changes how is learned gives what it wraps.
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
