"""Single-label classification: one class a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.config import read
from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.names import count
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.head import DenseHead, DistilledHead
from vitrail.layers.pool import Pool
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.layers.tokens import Pool as Kind
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.classify.evaluation import ClassEvaluation
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.classify.settings import ClassifySettings
from vitrail.tasks.result import Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row


class Order(TypedDict):
    """Classes and their probabilities, in one order."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """All classes of one picture, the likeliest first, with their probabilities."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """The probability of the likeliest class."""
        return self.probabilities[0]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities."""
        return list(zip(self.labels, self.probabilities, strict=True))[:count]

    def rows(self) -> list[dict[str, Any]]:
        """Return what a table of answers holds."""
        return [{"label": self.label, "probability": round(self.probability, 6)}]

    def to_dict(self) -> dict[str, Any]:
        """Return label, probability and the five likeliest classes."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        return {"label": self.label, "probability": round(self.probability, 6), "top": top}

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.1%}"


def named(labels: Sequence[str], most: int = 12) -> str:
    """Return which labels there are, in words; of many only how many."""
    if len(labels) > most:
        return f"The model knows {len(labels)}; `vitrail predict … --json` names the likeliest."
    return f"There are: {', '.join(labels)}."


def first(labels: Sequence[str], probabilities: Sequence[float], choice: str) -> Order:
    """Return labels and probabilities with one of them moved to the front."""
    place = labels.index(choice)
    order = [place, *(i for i in range(len(labels)) if i != place)]
    return {
        "labels": tuple(labels[i] for i in order),
        "probabilities": tuple(probabilities[i] for i in order),
    }


class ClassHead(nn.Module):
    """Pool the features and read off one number a class: Features -> (b, k)."""

    def __init__(self, spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> None:
        super().__init__()
        self.pool = Pool(spec, pool)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.pool.width, classes)
        # Where the published classifiers of a network read every token, so does ours: `DenseHead`.
        self.dense = nn.Linear(spec.width, classes) if spec.dense and pool is None else None
        for layer in (self.linear, self.dense):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    @property
    def reads_prefix(self) -> bool:
        """Whether the tokens in front of the patches are all it looks at."""
        return self.dense is None and self.pool.reads_prefix

    def forward(self, features: Features) -> Tensor:
        """Return logits."""  # -> (b, k)
        logits: Tensor = self.linear(self.dropout(self.pool(features)))
        if self.dense is None:
            return logits
        best: Tensor = self.dense(self.dropout(features.tokens.patches)).amax(1)
        return logits + DenseHead.SHARE * best


def class_head(spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> nn.Module:
    """Return the head from Features to (b, k): two where the network has a distillation token and no pool is named."""
    if pool is None and "dist" in spec.prefix:
        return DistilledHead(spec, classes, dropout=dropout)
    return ClassHead(spec, classes, pool, dropout)


def binary(output: Tensor, truth: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return the binary cross entropy of every class, mean over classes and pictures (DeiT III, arXiv:2204.07118).

    Logits (b, k) against class indices (b,) or rows of probabilities (b, k); `weight` (k,) counts each class.
    """
    k = output.shape[1]
    rows = truth.to(output.dtype) if truth.ndim == 2 else F.one_hot(truth, k).to(output.dtype)
    rows = rows * (1 - smoothing) + smoothing / k
    return F.binary_cross_entropy_with_logits(output, rows, weight=weight)


class Classify(Task[int, Ranked]):
    """Cross entropy over classes, with label smoothing, Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899).

    `loss` "bce" asks of every class by itself whether it is there, which suits mixed pictures (DeiT III, §3).
    """

    name = "classify"
    exports = Exports("image-classification", ("accuracy",))
    columns = ("label", "probability")
    Reads: ClassVar[type[ClassifySettings]] = ClassifySettings

    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        if len(labels) < 2:
            raise DataError(
                f"Classification needs two classes at least, got {list(labels)}. Add another class."
            )
        self.labels = tuple(labels)
        self.settings = read(self.Reads, settings or {}, "task settings")
        self._index = {label: i for i, label in enumerate(self.labels)}

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Return pooling and one linear layer; of a network with a distillation token both its heads."""
        return class_head(spec, len(self.labels), self.settings.pool, self.settings.dropout)

    def target(self, label: str) -> int:
        """Return the place of the label among the classes."""
        if label not in self._index:
            raise UnknownNameError("class", label, self.labels, named(self.labels))
        return self._index[label]

    def loss(self, output: Tensor, targets: Sequence[int] | Tensor) -> Losses:
        """Return cross entropy against class indices or rows of probabilities, or the binary one of DeiT III."""
        truth = torch.as_tensor(targets, device=output.device)
        weights = self.settings.class_weights
        weight = None if weights is None else torch.tensor(weights, device=output.device)
        smoothing = self.settings.smoothing
        if self.settings.loss == "bce":
            return Losses(binary(output.float(), truth, weight, smoothing))
        return Losses(F.cross_entropy(output.float(), truth, weight=weight, label_smoothing=smoothing))

    def accepts(self, row: Row) -> None:
        """Refuse several labels or none (DataError), and a class that is none of these (UnknownNameError)."""
        if len(row.labels) != 1:
            raise DataError(
                f"{row.id} has {count(len(row.labels), 'label')}, and the model knows one class a picture. "
                "Leave such pictures out, or train a model on pictures with several labels."
            )
        super().accepts(row)

    def evaluation(self) -> ClassEvaluation:
        """Return an empty evaluation."""
        return ClassEvaluation(self.labels, self.settings.temperature)

    @property
    def probe(self) -> ClassProbe:
        """Multinomial logistic regression."""
        return ClassProbe(self.labels, self.settings.temperature)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return softmax(logits / temperature): (b, k)."""
        scaled: Tensor = output.float() / self.settings.temperature
        return scaled.softmax(dim=-1)

    def decode(self, output: Tensor, at: Sequence[Geometry]) -> list[Ranked]:
        """Return the classes in order of probability."""
        values, order = self.probabilities(output).sort(dim=-1, descending=True, stable=True)
        return [
            Ranked(tuple(self.labels[i] for i in row), tuple(p))
            for row, p in zip(order.tolist(), values.tolist(), strict=True)
        ]

    def score(self, output: Tensor, prediction: Ranked) -> Tensor:
        """Return the logit of the predicted class: (b,)."""
        return output[:, self.target(prediction.label)]

    def choices(self, prediction: Ranked) -> Sequence[str]:
        """Return the classes, the likeliest first."""
        return prediction.labels

    def about(self, prediction: Ranked, choice: str) -> Ranked:
        """Return the answer as if this class stood first."""
        self.target(choice)
        return replace(prediction, **first(prediction.labels, prediction.probabilities, choice))

    def render(self, image: Image, prediction: Ranked) -> Image:
        """Return the picture above a bar for each of the likeliest classes."""
        return plots.label_bars(image, prediction.top(3))

    def prepare(self, batch: Batch[int], rng: np.random.Generator) -> Batch[Any]:
        """Mix pictures and labels: Mixup or CutMix, each as likely where both are on."""
        from torchvision.transforms import v2  # two seconds: only who trains pays for them

        kinds = [(v2.MixUp, self.settings.mixup), (v2.CutMix, self.settings.cutmix)]
        on = [(kind, alpha) for kind, alpha in kinds if alpha > 0]
        if not on or len(batch.ids) < 2:
            return batch
        kind, alpha = on[int(rng.integers(len(on)))]
        # torchvision draws from torch's global generator: it is seeded here and put back afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            truth = torch.as_tensor(batch.targets)
            images, mixed = kind(alpha=alpha, num_classes=len(self.labels))(batch.images, truth)
        return Batch(images, mixed, batch.ids, batch.geometry)
