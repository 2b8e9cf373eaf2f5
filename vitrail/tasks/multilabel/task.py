"""Multi-label classification: any number of labels a picture, each a question of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.config import read
from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.names import split_labels
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.classify.task import class_head, first, named
from vitrail.tasks.multilabel.evaluation import LabelEvaluation, flags
from vitrail.tasks.multilabel.probe import LabelProbe
from vitrail.tasks.multilabel.settings import MultiLabelSettings
from vitrail.tasks.result import Exports

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Labelled:
    """All labels of one picture, the likeliest first, with probabilities; and those that are answered."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    chosen: tuple[str, ...]

    @property
    def label(self) -> str:
        """The labels that are answered, in a line."""
        return ", ".join(self.chosen)

    @property
    def probability(self) -> float:
        """The probability of the likeliest label that is answered; where none is, of the likeliest of all."""
        return self.sure[self.chosen[0]] if self.chosen else self.probabilities[0]

    @property
    def sure(self) -> dict[str, float]:
        """The probability of each label."""
        return dict(zip(self.labels, self.probabilities, strict=True))

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the likeliest labels with their probabilities."""
        return list(zip(self.labels, self.probabilities, strict=True))[:count]

    def rows(self) -> list[dict[str, Any]]:
        """Return what a table of answers holds."""
        return [{"label": "|".join(self.chosen), "probability": round(self.probability, 6)}]

    def to_dict(self) -> dict[str, Any]:
        """Return the answered labels, joined by bars as tables write them and one by one, and the five likeliest."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        return {
            "label": "|".join(self.chosen),
            "probability": round(self.probability, 6),
            "labels": [{"label": label, "probability": round(self.sure[label], 6)} for label in self.chosen],
            "top": top,
        }

    def __str__(self) -> str:
        return ", ".join(f"{label} {self.sure[label]:.1%}" for label in self.chosen) or "none of the labels"


class MultiLabel(Task[tuple[int, ...], Labelled]):
    """Binary cross entropy, one question a label, with Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899)."""

    name = "classify_multi"
    exports = Exports("image-classification", ("accuracy",))
    columns = ("label", "probability")
    Reads: ClassVar[type[MultiLabelSettings]] = MultiLabelSettings

    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        if not labels:
            raise DataError("There is no label to learn. Write the labels of each picture into the table.")
        self.labels = tuple(labels)
        self.settings = read(self.Reads, settings or {}, "task settings")
        self._index = {label: i for i, label in enumerate(self.labels)}

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Return pooling and one linear layer."""
        return class_head(spec, len(self.labels), self.settings.pool, self.settings.dropout)

    def target(self, label: str) -> tuple[int, ...]:
        """Return the places of a cell's labels, which are separated by bars."""
        return tuple(self.place(one) for one in split_labels(label))

    def place(self, label: str) -> int:
        """Return the place of one label among the outputs."""
        if label not in self._index:
            raise UnknownNameError("label", label, self.labels, named(self.labels))
        return self._index[label]

    def loss(self, output: Tensor, targets: Sequence[tuple[int, ...]] | Tensor) -> Losses:
        """Return binary cross entropy, the mean over labels, against places or rows of 0 … 1.

        `class_weights` say how much a present label weighs against an absent one.
        """
        k = output.shape[1]
        truth = (targets if isinstance(targets, Tensor) else flags(targets, k)).to(output.device)
        soft = truth * (1 - self.settings.smoothing) + self.settings.smoothing / 2
        weights = self.settings.class_weights
        weight = None if weights is None else torch.tensor(weights, device=output.device)
        return Losses(F.binary_cross_entropy_with_logits(output.float(), soft, pos_weight=weight))

    def evaluation(self) -> LabelEvaluation:
        """Return an empty evaluation."""
        return LabelEvaluation(self.labels, self.settings.temperature, self.thresholds())

    @property
    def probe(self) -> LabelProbe:
        """One logistic regression a label."""
        return LabelProbe(self.labels, self.settings.temperature)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return sigmoid(logits / temperature): (b, k)."""
        scaled: Tensor = output.float() / self.settings.temperature
        return scaled.sigmoid()

    def thresholds(self) -> tuple[float, ...]:
        """Return from which probability on each label is answered; one half before they were chosen."""
        return self.settings.thresholds or (0.5,) * len(self.labels)

    def decode(self, output: Tensor, at: Sequence[Geometry]) -> list[Labelled]:
        """Return the labels in order of probability, and those above their thresholds."""
        least = self.thresholds()
        values, order = self.probabilities(output).sort(dim=-1, descending=True, stable=True)
        answers = []
        for row, found in zip(order.tolist(), values.tolist(), strict=True):
            names = tuple(self.labels[i] for i in row)
            chosen = tuple(self.labels[i] for i, p in zip(row, found, strict=True) if p >= least[i])
            answers.append(Labelled(names, tuple(found), chosen))
        return answers

    def score(self, output: Tensor, prediction: Labelled) -> Tensor:
        """Return the logit of the likeliest label: (b,)."""
        return output[:, self.place(prediction.labels[0])]

    def choices(self, prediction: Labelled) -> Sequence[str]:
        """Return the labels, the likeliest first."""
        return prediction.labels

    def about(self, prediction: Labelled, choice: str) -> Labelled:
        """Return the answer as if this label stood first."""
        self.place(choice)
        return replace(prediction, **first(prediction.labels, prediction.probabilities, choice))

    def render(self, image: Image, prediction: Labelled) -> Image:
        """Return the picture above a bar for each answered label, or for the likeliest three."""
        shown = max(1, len(prediction.chosen)) if prediction.chosen else 3
        return plots.label_bars(image, prediction.top(shown))

    def prepare(self, batch: Batch[Any], rng: np.random.Generator) -> Batch[Any]:
        """Mix pictures and labels: Mixup or CutMix, each as likely where both are on."""
        kinds = [("mixup", self.settings.mixup), ("cutmix", self.settings.cutmix)]
        on = [(kind, alpha) for kind, alpha in kinds if alpha > 0]
        truth = flags(batch.targets, len(self.labels)).to(batch.images.device)
        if not on or len(batch.ids) < 2:
            return Batch(batch.images, truth, batch.ids, batch.geometry)  # type: ignore[arg-type]
        kind, alpha = on[int(rng.integers(len(on)))]
        share = float(rng.beta(alpha, alpha))
        images, share = _mixed(batch.images, kind, share, rng)
        both = share * truth + (1 - share) * truth.roll(1, 0)
        return Batch(images, both, batch.ids, batch.geometry)  # type: ignore[arg-type]


def _mixed(images: Tensor, kind: str, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Mix each picture with the one before it; return the pictures and the share of each picture's own."""
    other = images.roll(1, 0)
    if kind == "mixup":
        return share * images + (1 - share) * other, share
    height, width = images.shape[-2:]
    side = (1 - share) ** 0.5
    row, col = int(rng.integers(height)), int(rng.integers(width))
    tall, wide = round(height * side / 2), round(width * side / 2)
    top, bottom = max(0, row - tall), min(height, row + tall)
    left, right = max(0, col - wide), min(width, col + wide)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
