"""Single-label classification: one class per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail import plots
from vitrail.core.errors import DataError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.labels import count
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.mahalanobis import Novelty
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.abstention import Abstention, novelty_of
from vitrail.tasks.base import FINGERPRINT, Ask, Following, Losses, Task, within
from vitrail.tasks.class_maps import ClassShares
from vitrail.tasks.classify import label_sets
from vitrail.tasks.classify.evaluation import ClassEvaluation
from vitrail.tasks.classify.head import class_head
from vitrail.tasks.classify.prediction import Names, Ranked, first
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.classify.settings import ClassifySettings
from vitrail.tasks.classify.targets import ClassTargets, NamedTargets, labels_of
from vitrail.tasks.result import Evaluation, Exports

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row


T = TypeVar("T")
NamedT = TypeVar("NamedT", bound=Names)


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
        return {"logits": ("class",)} if self._novelty is None else {"logits": ("class",), "novelty": ()}

    @property
    def _novelty(self) -> Abstention | None:
        """What the model file holds, if the model has a novelty score."""
        return self.abstention if self.abstention is not None and self.abstention.parts else None

    def reader(self) -> Novelty | None:
        """Return the module that computes the novelty score from features, if the model has one."""
        return None if self._novelty is None else novelty_of(self._novelty)

    def nonconformity(self, output: Output) -> Tensor:
        """Return how badly each label fits: the cross entropy, (b, k)."""
        scaled: Tensor = output["logits"].float() / self.settings.temperature
        return -scaled.log_softmax(dim=-1)

    def limits(self, evaluation: Evaluation, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the limits of "none of these" and label sets from evaluated images, with these settings."""
        assert isinstance(evaluation, ClassEvaluation), "the evaluation of this task"
        return evaluation.limits(settings["temperature"])

    def refuse_sets(self, error: float) -> None:
        """Raise a SettingError if the model cannot promise this error for label sets."""
        label_sets.refuse_sets(self.abstention, error)

    def remarks(self, ask: Ask, novel: bool) -> Sequence[str]:
        """Return sentences that explain the numbers of predictions, of which some are `novel`."""
        if self.abstention is None:
            return ()
        return list(label_sets.remarks(self.abstention, self.labels, ask.sets, ask.each_class, novel))

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
        return ClassEvaluation(self.labels, self.settings.temperature, self.abstention)

    @property
    def probe(self) -> ClassProbe:
        return ClassProbe(self.labels, self.settings.temperature)

    def probabilities(self, output: Output) -> Tensor:
        """Return softmax(logits / temperature): (b, k)."""
        scaled: Tensor = output["logits"].float() / self.settings.temperature
        return scaled.softmax(dim=-1)

    def none_of_these(self, output: Output) -> Tensor | None:
        """Return for which images the answer is "none of these", bool (b,); None if the model has no such limit."""
        stored, novelty = self._novelty, output.get("novelty")
        return None if stored is None or novelty is None else label_sets.is_novel(stored, novelty)

    def class_shares(self, output: Output) -> ClassShares:
        """Return the probabilities, and which images are "none of these"."""
        return ClassShares(self.probabilities(output), self.none_of_these(output))

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Ranked]:
        """Return the classes in order of probability, with "none of these" and the label set if there are any."""
        values, order = self.probabilities(output).sort(dim=-1, descending=True, stable=True)
        ranked = [
            Ranked(tuple(self.labels[i] for i in row), tuple(p))
            for row, p in zip(order.tolist(), values.tolist(), strict=True)
        ]
        stored, novel, novelty = self._novelty, self.none_of_these(output), output.get("novelty")
        if stored is not None and novel is not None and novelty is not None:
            flags = novel.tolist()
            shares = [label_sets.unlike(stored, score) for score in novelty.tolist()]
            pairs = zip(ranked, shares, flags, strict=True)
            ranked = [replace(one, unlike=share, none_of_these=flag) for one, share, flag in pairs]
        return ranked if ask.sets is None else self._with_sets(ranked, output, ask.sets, ask.each_class)

    def _with_sets(
        self, ranked: Sequence[Ranked], output: Output, error: float, each_class: bool
    ) -> list[Ranked]:
        """Return predictions with the labels that cannot be ruled out, the most probable first."""
        self.refuse_sets(error)
        assert self.abstention is not None, "refuse_sets raises without it"
        limits = label_sets.set_limits(self.abstention, error, each_class)
        members = (self.nonconformity(output).double().cpu() <= limits).tolist()
        return [
            replace(one, label_set=tuple(label for label in one.labels if row[self.place(label)]))
            for one, row in zip(ranked, members, strict=True)
        ]

    def fingerprint(self, output: Output) -> Tensor:
        """Return the probabilities, and the novelty score as a number from 0 to 1."""
        probabilities = self.probabilities(output)
        if self._novelty is None:
            return within(probabilities)
        score = label_sets.squashed(self._novelty, output["novelty"])[:, None]
        return torch.cat([within(probabilities, FINGERPRINT - 1), score], -1)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return where the predicted class is the same, and both or none are "none of these"."""
        p, q = self.probabilities(one), self.probabilities(other)
        gap = p.amax(-1) - p.gather(-1, q.argmax(-1, keepdim=True))[..., 0]
        same = (p.argmax(-1) == q.argmax(-1)) | (gap < tolerance)
        if self._novelty is None:
            return same
        found, again = (label_sets.is_novel(self._novelty, output["novelty"]) for output in (one, other))
        values, others = (label_sets.squashed(self._novelty, output["novelty"]) for output in (one, other))
        return same & ((found == again) | ((values - others).abs() < max(tolerance, label_sets.NEAR)))

    def score(self, output: Output, prediction: Ranked) -> Tensor:
        """Return the logit of the predicted class: (b,)."""
        return output["logits"][:, self.place(prediction.label)]

    def render(self, image: Image, prediction: Ranked) -> Image:
        """Return the image above a bar for each of the three most probable classes."""
        if prediction.none_of_these and prediction.unlike is not None:
            return plots.label_bars(image, [("none of these", prediction.unlike), *prediction.top(2)])
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
