"""Single-label classification: one class per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.errors import DataError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.labels import count
from vitrail.data.truth import Truth
from vitrail.layers.heads import NO_INPUTS, DenseHead, DistilledHead, Head, Output, PooledHead
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.layers.tokens import Pool as Kind
from vitrail.tasks.base import Ask, Following, Losses, Task, within
from vitrail.tasks.classify.evaluation import ClassEvaluation
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.classify.settings import ClassifySettings
from vitrail.tasks.classify.targets import ClassTargets, NamedTargets, labels_of
from vitrail.tasks.result import Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row


class Order(TypedDict):
    """Classes and their probabilities, in the same order."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Names(ABC):
    """All labels of one image, the most probable first, with their probabilities."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable labels with their probabilities."""
        return list(zip(self.labels, self.probabilities, strict=True))[:count]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain data for JSON."""


T = TypeVar("T")
NamedT = TypeVar("NamedT", bound=Names)


@dataclass(frozen=True, slots=True)
class Ranked(Names):
    """All classes of one image, the most probable first, with their probabilities."""

    @property
    def label(self) -> str:
        """The predicted class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """The probability of the predicted class."""
        return self.probabilities[0]

    def rows(self) -> list[dict[str, Any]]:
        """Return the row of a table of predictions."""
        return [{"label": self.label, "probability": round(self.probability, 6)}]

    def to_dict(self) -> dict[str, Any]:
        """Return label, probability and the five most probable classes."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        return {"label": self.label, "probability": round(self.probability, 6), "top": top}

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.1%}"


def first(labels: Sequence[str], probabilities: Sequence[float], choice: str) -> Order:
    """Return labels and probabilities with `choice` moved to the front."""
    place = labels.index(choice)
    order = [place, *(i for i in range(len(labels)) if i != place)]
    return {
        "labels": tuple(labels[i] for i in order),
        "probabilities": tuple(probabilities[i] for i in order),
    }


class ClassHead(PooledHead):
    """Pool the features and compute one logit per class: Features -> logits (b, k)."""

    def __init__(self, spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> None:
        super().__init__()
        self.read_pool(Pool(spec, pool))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.pool.width, classes)
        # Some published classifiers read every token (`DenseHead`); the head of such a network does the same.
        self.dense = nn.Linear(spec.width, classes) if spec.dense and pool is None else None
        if self.dense is not None:
            self.reads = "patches"
        for layer in (self.linear, self.dense):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return logits."""  # -> (b, k)
        logits: Tensor = self.linear(self.dropout(self.pool(features)))
        if self.dense is not None:
            best: Tensor = self.dense(self.dropout(features.tokens.patches)).amax(1)
            logits = logits + DenseHead.SHARE * best
        return {"logits": logits}


def class_head(spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> Head:
    """Return the head from Features to (b, k); two heads if there is a distillation token and no pool is set."""
    if pool is None and "dist" in spec.prefix:
        return DistilledHead(spec, classes, dropout=dropout)
    return ClassHead(spec, classes, pool, dropout)


def binary(output: Tensor, truth: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return the binary cross entropy, the mean over classes and images (DeiT III, arXiv:2204.07118).

    It compares logits (b, k) with class indices (b,) or probabilities (b, k); `weight` (k,) weighs the classes.
    """
    k = output.shape[1]
    rows = truth.to(output.dtype) if truth.ndim == 2 else F.one_hot(truth, k).to(output.dtype)
    rows = rows * (1 - smoothing) + smoothing / k
    return F.binary_cross_entropy_with_logits(output, rows, weight=weight)


class NamedAnswers(Task[T, NamedT], NamedTargets[T]):
    """A task that predicts probabilities of labels: the base of single-label and multi-label classification."""

    exports = Exports("image-classification", ("accuracy",))
    columns = ("label", "probability")
    readable_outputs = ("probabilities",)

    @abstractmethod
    def probabilities(self, output: Output) -> Tensor:
        """Return the probability of each label: (b, k)."""

    @property
    def temperature(self) -> float:
        """The divisor of the logits before softmax or sigmoid."""
        return float(self.settings.temperature)

    def readable(self, output: Output) -> Output:
        """Return the probabilities, for exported graphs."""
        return {"probabilities": self.probabilities(output)}

    def fingerprint(self, output: Output) -> Tensor:
        return within(self.probabilities(output))

    def choices(self, prediction: NamedT) -> Sequence[str]:
        return prediction.labels

    def focus(self, prediction: NamedT, choice: str) -> NamedT:
        """Return the prediction with this label moved to the front."""
        self.place(choice)
        return replace(prediction, **first(prediction.labels, prediction.probabilities, choice))


class Classify(NamedAnswers[int, Ranked], ClassTargets):
    """Cross entropy over classes, with label smoothing, Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899).

    `loss` "bce" trains each class as an independent yes or no, which suits mixed images (DeiT III, §3).
    """

    name = "classify"
    Settings = ClassifySettings

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        if len(self.labels) < 2:
            raise DataError(
                f"Classification needs at least two classes, got {list(self.labels)}. Add another class."
            )

    problem = "single_label_classification"

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return {"logits": ("class",)}

    def head(self, spec: FeatureSpec) -> Head:
        """Return pooling and one linear layer; two heads for a network with a distillation token."""
        return class_head(spec, len(self.labels), self.settings.pool, self.settings.dropout)

    def loss(self, output: Output, targets: Sequence[int] | Tensor) -> Losses:
        """Return cross entropy, or the binary one of DeiT III, against class indices or probabilities."""
        logits = output["logits"].float()
        truth = torch.as_tensor(targets, device=logits.device)
        weights = self.settings.class_weights
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        smoothing = self.settings.smoothing
        if self.settings.loss == "bce":
            return Losses({"bce": binary(logits, truth, weight, smoothing)})
        entropy = F.cross_entropy(logits, truth, weight=weight, label_smoothing=smoothing)
        return Losses({"cross_entropy": entropy})

    def losses(self, output: Output, truths: Sequence[int]) -> Tensor:
        """Return the plain cross entropy of each image: (b,)."""
        logits = output["logits"].float()
        return F.cross_entropy(logits, torch.as_tensor(truths, device=logits.device), reduction="none")

    def weights(self, targets: Sequence[int] | Tensor) -> Mapping[str, float]:
        """Return the denominator of weighted cross entropy: the sum of the weights of the true classes.

        Mixed images have probabilities as targets; for these torch takes the mean over images.
        """
        classes = self.settings.class_weights
        mixed = self.settings.mixup > 0 or self.settings.cutmix > 0
        if classes is None or mixed or self.settings.loss == "bce":
            return {}
        return {"cross_entropy": float(torch.tensor(classes)[torch.as_tensor(targets).cpu()].sum())}

    def follow(self, output: Output, teacher: Output, by: Following) -> Tensor:
        """Return the distance of logits (b, k) from those of a teacher, the mean over images.

        `hard`: cross entropy against the teacher's top class; `soft`: τ² KL(teacher ‖ student) of outputs softened by
        τ (arXiv:2012.12877, eqs. 2 and 3); `match`: KL divergence of the probabilities without softening.
        """
        student, other = output["logits"].float(), teacher["logits"].float()
        if by.kind == "match":
            return F.kl_div(student.log_softmax(-1), other.softmax(-1), reduction="batchmean")
        if by.kind == "hard":
            return F.cross_entropy(student, other.argmax(1))
        tau = by.temperature
        softened, target = (student / tau).log_softmax(1), (other / tau).log_softmax(1)
        return tau**2 * F.kl_div(softened, target, log_target=True, reduction="none").sum(1).mean()

    def accepts(self, row: Row) -> None:
        """Raise DataError for several labels: without such images the score would be one of an easier set."""
        if len(labels_of(row)) > 1:
            raise DataError(
                f"{row.id} has {count(len(labels_of(row)), 'label')}, but the model predicts one class per image. "
                "Remove such images, or train a model with --task multilabel."
            )

    def evaluation(self) -> ClassEvaluation:
        return ClassEvaluation(self.labels, self.settings.temperature)

    @property
    def probe(self) -> ClassProbe:
        return ClassProbe(self.labels, self.settings.temperature)

    def probabilities(self, output: Output) -> Tensor:
        """Return softmax(logits / temperature): (b, k)."""
        scaled: Tensor = output["logits"].float() / self.settings.temperature
        return scaled.softmax(dim=-1)

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Ranked]:
        """Return the classes in order of probability."""
        values, order = self.probabilities(output).sort(dim=-1, descending=True, stable=True)
        return [
            Ranked(tuple(self.labels[i] for i in row), tuple(p))
            for row, p in zip(order.tolist(), values.tolist(), strict=True)
        ]

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return where the predicted class is the same."""
        p, q = self.probabilities(one), self.probabilities(other)
        gap = p.amax(-1) - p.gather(-1, q.argmax(-1, keepdim=True))[..., 0]
        return (p.argmax(-1) == q.argmax(-1)) | (gap < tolerance)

    def score(self, output: Output, prediction: Ranked) -> Tensor:
        """Return the logit of the predicted class: (b,)."""
        return output["logits"][:, self.place(prediction.label)]

    def render(self, image: Image, prediction: Ranked) -> Image:
        """Return the image above a bar for each of the three most probable classes."""
        return plots.label_bars(image, prediction.top(3))

    def prepare(self, batch: Batch[int], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Mix images and labels with Mixup or CutMix; if both are on, each has the same probability."""
        from torchvision.transforms import v2  # the import takes two seconds: only training needs it

        kinds = [(v2.MixUp, self.settings.mixup), (v2.CutMix, self.settings.cutmix)]
        on = [(kind, alpha) for kind, alpha in kinds if alpha > 0]
        if not on or len(batch) < 2:
            return batch
        kind, alpha = on[int(rng.integers(len(on)))]
        # torchvision uses torch's global generator: it is seeded here and restored afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            truth = torch.as_tensor(batch.targets)
            images, mixed = kind(alpha=alpha, num_classes=len(self.labels))(batch.images, truth)
        return batch.with_images(images, mixed)
