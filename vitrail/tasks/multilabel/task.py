"""Multi-label classification: any number of labels per image, each an independent yes or no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail import plots
from vitrail.core.errors import DataError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Following, Losses
from vitrail.tasks.classify.head import class_head
from vitrail.tasks.classify.prediction import Names
from vitrail.tasks.classify.task import NamedAnswers
from vitrail.tasks.multilabel.evaluation import LabelEvaluation, multi_hot
from vitrail.tasks.multilabel.probe import LabelProbe
from vitrail.tasks.multilabel.settings import MultiLabelSettings
from vitrail.tasks.multilabel.targets import LabelTargets

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Labelled(Names):
    """All labels of one image, the most probable first, with probabilities; `chosen` are the predicted labels."""

    chosen: tuple[str, ...]

    @property
    def label(self) -> str:
        """The predicted labels, separated by commas."""
        return ", ".join(self.chosen)

    @property
    def probability(self) -> float:
        """The probability of the most probable predicted label; without one, of the most probable label."""
        return self.sure[self.chosen[0]] if self.chosen else self.probabilities[0]

    @property
    def sure(self) -> dict[str, float]:
        """The probability of each label."""
        return dict(zip(self.labels, self.probabilities, strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """Return the row of a table of predictions."""
        return [{"label": "|".join(self.chosen), "probability": round(self.probability, 6)}]

    def to_dict(self) -> dict[str, Any]:
        """Return the predicted labels, joined by "|" as in tables and one by one, and the five most probable labels."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        return {
            "label": "|".join(self.chosen),
            "probability": round(self.probability, 6),
            "labels": [{"label": label, "probability": round(self.sure[label], 6)} for label in self.chosen],
            "top": top,
        }

    def __str__(self) -> str:
        return ", ".join(f"{label} {self.sure[label]:.1%}" for label in self.chosen) or "none of the labels"


class MultiLabel(NamedAnswers[tuple[int, ...], Labelled], LabelTargets):
    """Binary cross entropy of each label, with Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899)."""

    name = "multilabel"
    Settings = MultiLabelSettings

    kind = "classes"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        if not self.labels:
            raise DataError("There is no label to learn. Write the labels of each image into the table.")

    problem = "multi_label_classification"

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return {"logits": ("label",)}

    def head(self, spec: FeatureSpec) -> Head:
        return class_head(spec, len(self.labels), self.settings.pool, self.settings.dropout)

    def loss(self, output: Output, targets: Sequence[tuple[int, ...]] | Tensor) -> Losses:
        """Return binary cross entropy, the mean over labels, against label indices or rows of 0 … 1.

        `class_weights` are the weights of a present label relative to an absent one.
        """
        logits = output["logits"].float()
        truth = (targets if isinstance(targets, Tensor) else multi_hot(targets, logits.shape[1])).to(
            logits.device
        )
        soft = truth * (1 - self.settings.smoothing) + self.settings.smoothing / 2
        weights = self.settings.class_weights
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        return Losses({"bce": F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weight)})

    def losses(self, output: Output, truths: Sequence[tuple[int, ...]]) -> Tensor:
        """Return the binary cross entropy of each image, the mean over labels: (b,)."""
        logits = output["logits"].float()
        truth = multi_hot(truths, logits.shape[1]).to(logits.device)
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)

    def follow(self, output: Output, teacher: Output, by: Following) -> Tensor:
        """Return the binary cross entropy against the output of a teacher, the mean over labels and images.

        `hard`: against its yes or no; `soft`: both softened by τ, times τ²; `match`: against its probabilities.
        """
        student, other = output["logits"].float(), teacher["logits"].float()
        if by.kind == "match":
            return F.binary_cross_entropy_with_logits(student, other.sigmoid())
        if by.kind == "hard":
            return F.binary_cross_entropy_with_logits(student, (other > 0).float())
        tau = by.temperature
        return tau**2 * F.binary_cross_entropy_with_logits(student / tau, (other / tau).sigmoid())

    def evaluation(self) -> LabelEvaluation:
        return LabelEvaluation(self.labels, self.settings.temperature, self.thresholds())

    @property
    def probe(self) -> LabelProbe:
        return LabelProbe(self.labels, self.settings.temperature)

    def probabilities(self, output: Output) -> Tensor:
        """Return sigmoid(logits / temperature): (b, k)."""
        scaled: Tensor = output["logits"].float() / self.settings.temperature
        return scaled.sigmoid()

    def thresholds(self) -> tuple[float, ...]:
        """Return the probability threshold of each label; 0.5 before thresholds are fitted."""
        return self.settings.thresholds or (0.5,) * len(self.labels)

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Labelled]:
        """Return the labels in order of probability, and those above their thresholds."""
        thresholds = self.thresholds()
        values, order = self.probabilities(output).sort(dim=-1, descending=True, stable=True)
        predictions = []
        for row, probabilities in zip(order.tolist(), values.tolist(), strict=True):
            names = tuple(self.labels[i] for i in row)
            pairs = zip(row, probabilities, strict=True)
            chosen = tuple(self.labels[i] for i, p in pairs if p >= thresholds[i])
            predictions.append(Labelled(names, tuple(probabilities), chosen))
        return predictions

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return where the same labels are predicted."""
        p, q = self.probabilities(one), self.probabilities(other)
        thresholds = torch.tensor(self.thresholds(), device=p.device)
        return (((p >= thresholds) == (q >= thresholds)) | ((p - thresholds).abs() < tolerance)).all(-1)

    def score(self, output: Output, prediction: Labelled) -> Tensor:
        """Return the logit of the most probable label: (b,)."""
        return output["logits"][:, self.place(prediction.labels[0])]

    def render(self, image: Image, prediction: Labelled) -> Image:
        """Return the image above a bar for each predicted label; without one, for the three most probable."""
        return plots.label_bars(image, prediction.top(len(prediction.chosen) or 3))

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Mix images and labels with Mixup or CutMix; if both are on, each has the same probability."""
        kinds = [("mixup", self.settings.mixup), ("cutmix", self.settings.cutmix)]
        on = [(kind, alpha) for kind, alpha in kinds if alpha > 0]
        truth = multi_hot(batch.targets, len(self.labels)).to(batch.images.device)
        if not on or len(batch) < 2:
            return batch.with_images(batch.images, truth)
        kind, alpha = on[int(rng.integers(len(on)))]
        share = float(rng.beta(alpha, alpha))
        images, share = _mixed(batch.images, kind, share, rng)
        return batch.with_images(images, share * truth + (1 - share) * truth.roll(1, 0))


def _mixed(images: Tensor, kind: str, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Mix each image with the previous one; return the images and the share that remains of each image itself."""
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
