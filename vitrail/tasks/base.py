"""The interface of a task: targets, head, loss, prediction, proof and evaluation.

No other module knows what is predicted.

A task may have these optional members, which are looked up by name (`getattr`):

    points(size)      the operating points that its network is trained for
    follow(…)         the loss against the output of a teacher (distillation, elastic training)
    taught_by(…)      set the teacher that the training has loaded
    refuse_network(encoder)  raise a SettingError for a network that this task cannot be trained with
    readable(output)  extra outputs of an exported graph, placed first and named by `readable_outputs`
    for_large(…)      settings for images much larger than the input, and lines that explain them
    in_windows(…)     the output for images larger than the input, from the outputs of their windows
    in_image(…)       the output of an exported graph in the pixels of the image itself (`picture_outputs`)
    meanings          what outputs of the network are, in words by name; "{place}" becomes how to place maps in an image
    compare(…)        the image with truth, prediction and their difference drawn on it, for pages
    tiles(…), join_tiles(…)  where the tiles of a large image lie, and its prediction from those of its tiles
    write_labels(…)   predictions as files that programs for labelling read ("coco", "yolo")
    glance(…)         a small image of truth beside prediction, shown while a training runs
    made(…), sheet(…)  images that the network makes: `vitrail.tasks.image_makers.MakesImages`
    nonconformity(…), refuse_sets(…), remarks(…)   label sets and "none of these": `vitrail.tasks.abstention.Abstaining`
    settled(output)   for which images the prediction does not hang on the last bit of a number, (b,), for exports
    class_shares(…), pixel_shares(…)  classes of windows or pixels, for maps of rasters: `vitrail.tasks.class_maps`
    reader()          the module that makes outputs from feature vectors (`vitrail.layers.mahalanobis`), or None
    losses(output, truths)  the loss of each image, (b,), without smoothing or weights: what an attack on the pixels
                      raises; with it, and `right` among `Evaluation.per_image`, robustness can be measured
    temperature       the divisor of the logits in exported folders; `problem` is the task's name in transformers

Its `probe` may have these, too (`tasks/probe.py`): `wrong(…)` for learning curves, `label_scores(…)` for label errors.

A prediction may have `rows()`, the rows of a table of predictions, `files()`, bytes by file name suffix, and
`none_of_these` with `unlike`, whether the image is of none of the classes, and the number for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.core.config import Settings as AnySettings
from vitrail.core.config import read
from vitrail.core.errors import UnknownNameError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.abstention import Abstention
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation, Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row

Target = TypeVar("Target")

AT = " at "
"""Separates the name of a loss part from its operating point; `Task.weights` uses the name in front of it."""

FINGERPRINT = 4096
"""Largest number of values per image in a proof."""


class Prediction(Protocol):
    """The prediction for one image, as text (`str`) and as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain data for JSON."""
        ...

    def __str__(self) -> str: ...


PredictionT = TypeVar("PredictionT", bound=Prediction)


class Losses(NamedTuple):
    """The parts of a loss by name, each a scalar: a mean over the units that `Task.weights` counts."""

    parts: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the parts, which is minimised."""
        first, *others = self.parts.values()
        for part in others:
            first = first + part
        return first


@dataclass(frozen=True, slots=True)
class Ask:
    """Options of a prediction request: the confidence threshold, the number of choices to return, and label sets.

    `sets` is the allowed share of sets without the right label; with `each_class` it holds for each class alone.
    """

    threshold: float | None = None
    top: int = 5
    sets: float | None = None
    each_class: bool = False


class Asked(NamedTuple):
    """A region to explain: `box` is (left, top, right, bottom) in pixels of the original.

    `choice` is the name of the choice, `answer` the prediction in the region, `heading` the title of the explanation,
    and `others` the same region for the other classes, the most probable first.
    """

    box: tuple[float, float, float, float]
    choice: str
    answer: str
    heading: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """How a student follows a teacher: `match` its probabilities, `hard` its top class, `soft` softened outputs."""

    kind: Literal["match", "hard", "soft"] = "match"
    temperature: float = 1.0


class InOriginal(Protocol):
    """How outputs of an input are placed in the pixels of its image, as numbers or inside a graph."""

    def weights(self, rows: int, cols: int) -> tuple[Tensor, Tensor]:
        """Return the weights that resize a map of so many cells to the image: (height, rows), (width, cols)."""
        ...

    def boxes(self, xyxy: Tensor) -> Tensor:
        """Return boxes (…, 4) in shares of the input as pixels of the image, clipped at its border."""
        ...


class PictureOutput(NamedTuple):
    """An output of an exported graph in the pixels of the image itself: its name, its type, and what it is."""

    name: str
    dtype: str
    words: str


class Task(Targets[Target], Generic[Target, PredictionT]):
    """Base class of all tasks: targets, head, loss, prediction, proof and evaluation.

    A task is built from the header of its truths (or only the class names) and its settings. Both are stored with the
    model, so that `load("task", name)(truth, settings)` builds the task again. `inputs` names the tensors of a batch
    that its networks read.
    """

    name: str
    Settings: ClassVar[type[AnySettings]] = AnySettings
    inputs: tuple[str, ...] = ("images",)
    answers: bool = True
    """False if the task gives no prediction for an image, as in pretraining."""
    networks: tuple[tuple[float, str], ...] = ((64, "vit_digits"), (inf, "vit_s16"))
    """The networks that are trained from scratch unless one is named, with the longest short side in pixels of each."""
    couples: bool = False
    """True if the loss couples the images of a batch: such a batch is never split into micro-batches."""
    fresh: bool = False
    """True if a training begins with random weights unless weights are named."""
    head_rate: float = 1.0
    """Learning rate of the head, as a multiple of the learning rate of the encoder."""
    begins_from: tuple[str, ...] = ()
    """The tasks whose published heads a training of this one begins with."""
    head_settings: tuple[str, ...] = ()
    """The settings that such a head was made with, and that a recipe takes from the weights unless it states them."""
    measures: bool = False
    """True if predictions state lengths or areas: the pixel size is then read from the file of each image."""
    takes_threshold: bool = False
    """True if `decode` leaves out predictions below the threshold of an `Ask`."""
    finds_objects: bool = False
    """True if predictions hold `found` boxes of objects, whose `outlines` can be drawn and which can be tracked."""
    agreement: str = "top answers are the same"
    """The text that reports use for outputs that agree (`agree`)."""
    kind: ClassVar[str] = "class"
    """The kind of truth that is assumed if only names are given."""
    settings: Any
    exports: Exports | None = None
    """The names of the task on model hubs, if they have one."""

    abstention: Abstention | None = None
    """What the model file holds of "none of these" and of label sets; opening the file sets it."""

    columns: tuple[str, ...] = ()
    """The columns that a table of predictions always has, even without any prediction."""

    @property
    def probe(self) -> Probe | None:
        """The linear probe of this task; a task without one has no draft."""
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
        """The output tensors by name, with their axes after the batch axis."""

    # Network

    @abstractmethod
    def head(self, spec: FeatureSpec) -> Head:
        """Return the module that computes the outputs of this task from features."""

    def steps(self, preprocess: Preprocess) -> Preprocess:
        """Return the preprocessing of this task; the default changes nothing."""
        return preprocess

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Return the batch for training (mixing, masking, noise); `progress` of the training is 0 … 1.

        A step counts what `weights` counts before it calls `prepare`; micro-batches are weighted by these numbers.
        """
        return batch

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the training loss of a batch: prepare it, run the network, compute the loss. Wrappers override it."""
        ready = self.prepare(batch, rng, progress)
        return self.loss(self.answer(network, ready, Ask()), ready.targets)

    @abstractmethod
    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the parts of the loss of a batch of outputs."""

    def weights(self, targets: Any) -> Mapping[str, float]:
        """Return the denominator of each part of the loss (pixels, boxes); parts that are not named count images.

        Micro-batches, in one process or several, are weighted by these numbers. A part that counts nothing is 0.
        """
        return {}

    # Answer

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Return the network's output for a batch, by default one forward pass.

        Tasks with sampling, windows or several prompts override it.
        """
        output: Output = network(batch.inputs)
        return output

    @abstractmethod
    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[PredictionT]:
        """Return one prediction per image, in the pixels of the originals."""

    def accepts(self, row: Row) -> None:
        """Raise DataError for a truth that this task does not support: without it the score would be misleading."""

    def choices(self, prediction: PredictionT) -> Sequence[str]:
        """Return the names of what can be explained, the most probable first; by default only the prediction itself."""
        return (str(prediction),)

    def asked(self, prediction: PredictionT, output: Output) -> Asked | None:
        """Return the region that a prediction from `focus` is about; None for the whole image."""
        return None

    def focus(self, prediction: PredictionT, choice: str) -> PredictionT:
        """Return the prediction whose score explains `choice`; raise UnknownNameError if it is not a choice."""
        if choice not in (known := self.choices(prediction)):
            raise UnknownNameError(
                "answer", choice, known, "Remove --of: this task explains only the whole prediction."
            )
        return prediction

    @abstractmethod
    def score(self, output: Output, prediction: PredictionT) -> Tensor:
        """Return the number that is explained for `prediction`: (b,)."""

    @abstractmethod
    def render(self, image: Image, prediction: PredictionT) -> Image:
        """Return the image with the prediction drawn on it."""

    # Proof

    @abstractmethod
    def fingerprint(self, output: Output) -> Tensor:
        """Return the values of about 0 … 1 that a proof compares, before any selection: (b, m), m at most 4,096."""

    @abstractmethod
    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images two outputs give the same prediction: bool (b,).

        With a `tolerance`, two predictions also count as the same if their values in the first output differ by less
        than the tolerance, on the scale of a fingerprint.
        """

    # Evaluation

    @abstractmethod
    def evaluation(self) -> Evaluation:
        """Return an empty evaluation; training and reports use the same one."""

    def deployed_task(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the (name, task) that is stored in the model file; `name` is this task's name in the recipe.

        Training-only wrappers, such as distillation, return the task they wrap.
        """
        return name, self


def within(numbers: Tensor, most: int = FINGERPRINT) -> Tensor:  # (b, …) -> (b, at most `most`)
    """Return the values of a fingerprint; too many are replaced by sums over equal spans, so no change is lost."""
    flat = numbers.flatten(1)
    if flat.shape[1] <= most:
        return flat
    span = -(-flat.shape[1] // most)
    filled = pad(flat, (0, -flat.shape[1] % span))
    return filled.view(len(flat), -1, span).sum(-1)
