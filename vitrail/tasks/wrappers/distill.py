"""Learning from a teacher beside the labels: Hinton et al. 2015, arXiv:1503.02531; DeiT, arXiv:2012.12877, §3.

Only training differs: the model that is kept is one of the wrapped task, with nothing of the teacher in it. A
network with a distillation token (`deit_*_distilled`) answers the labels by its class token and the teacher by
the other, and with the mean of both when it predicts; any other network answers both with its one head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.core.config import read
from vitrail.core.errors import SettingError
from vitrail.data.sample import Batch, Geometry
from vitrail.layers.head import DistilledHead
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation
from vitrail.tasks.wrappers.settings import DistillSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row

Teacher = Callable[[Tensor], Tensor]
"""Images as the student gets them (b, channels, height, width) -> the teacher's logits (b, k), without gradient."""

SHARES = {"hard": 0.5, "soft": 0.1}
"""The teacher's share of the loss in the paper (§3; for soft distillation λ of its section 5)."""


class BothAnswers(DistilledHead):
    """The two heads of a distilled network, both answers at once: Features -> (b, 2, k)."""

    def forward(self, features: Features) -> Tensor:
        """Return the answer for the labels, then the one for the teacher."""
        return torch.stack(self.both(features), dim=1)


class Distill(Task[Any, Any]):
    """Another task, learnt from its labels and from a teacher: (1 - share) · own loss + share · teacher's.

    hard: cross entropy against the teacher's choice (eq. 3). soft: τ² KL(teacher ‖ student) of answers softened
    by τ (eq. 2), mean over pictures. Where each label is a yes or a no, both are binary.
    """

    name = "distill"

    def __init__(self, labels: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        self.settings = read(DistillSettings, settings or {}, "task settings")
        if self.settings.task == self.name:
            raise SettingError("A task that is distilled cannot be distillation itself; name another.")
        self.inner: Task[Any, Any] = load("task", self.settings.task)(labels, self.settings.settings)
        if type(self.inner).learn is not Task.learn:
            raise SettingError(
                f"The task {self.settings.task!r} has a way of learning of its own, which a teacher would replace. "
                "Leave --teacher out, or take classify or classify_multi."
            )
        self.labels = self.inner.labels
        self.share = self.settings.share or SHARES[self.settings.kind]
        self._teacher: Teacher | None = None
        self._two = False  # whether the head answers the labels and the teacher apart

    def taught_by(self, teacher: Teacher) -> None:
        """Take a teacher; without one nothing can be learnt."""
        self._teacher = teacher

    def kept(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the wrapped task: a trained model needs no teacher."""
        return self.settings.task, self.inner

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Return the wrapped task's head; of a distilled network both of them."""
        head = self.inner.head(spec)
        self._two = isinstance(head, DistilledHead)
        if not isinstance(head, DistilledHead):
            return head
        return BothAnswers(spec, len(self.labels), dropout=head.dropout.p)

    def target(self, label: str) -> Any:
        """Return the wrapped task's target."""
        return self.inner.target(label)

    def loss(self, output: Tensor, targets: Sequence[Any]) -> Losses:
        """Return the wrapped task's loss of the answer."""
        return self.inner.loss(self._answer(output), targets)

    def evaluation(self) -> Evaluation:
        """Return the wrapped task's evaluation."""
        return self.inner.evaluation()

    def accepts(self, row: Row) -> None:
        """Refuse what the wrapped task cannot be scored by."""
        self.inner.accepts(row)

    @property
    def probe(self) -> Probe | None:
        """The wrapped task's probe."""
        return self.inner.probe

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the wrapped task's probabilities."""
        return self.inner.probabilities(self._answer(output))

    def decode(self, output: Tensor, at: Sequence[Geometry]) -> list[Any]:
        """Return the wrapped task's predictions."""
        return self.inner.decode(self._answer(output), at)

    def score(self, output: Tensor, prediction: Any) -> Tensor:
        """Return the wrapped task's number to explain."""
        return self.inner.score(self._answer(output), prediction)

    def render(self, image: Image, prediction: Any) -> Image:
        """Return the wrapped task's drawing."""
        return self.inner.render(image, prediction)

    def prepare(self, batch: Batch[Any], rng: np.random.Generator) -> Batch[Any]:
        """Mix as the wrapped task does; the teacher sees the mixed pictures, too."""
        return self.inner.prepare(batch, rng)

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the answer: of two heads their mean."""
        return self._answer(self.inner.infer(network, images))

    def learn(self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator) -> Losses:
        """Return both losses of a batch, and their weighted sum.

        Raises:
            SettingError: there is no teacher, or its answers are not one number a class.
        """
        if self._teacher is None:
            raise SettingError(
                f"The teacher {self.settings.teacher!r} was not opened; train with `vitrail train --teacher`."
            )
        ready = self.prepare(batch, rng)
        output = self.inner.infer(network, ready.images)
        own, other = output.unbind(1) if self._two else (output, output)
        labels = self.inner.loss(own, ready.targets).total
        teacher = self._against(other.float(), self._teacher(ready.images).float())
        total = (1 - self.share) * labels + self.share * teacher
        return Losses(total, {"labels": labels.detach(), "teacher": teacher.detach()})

    def _answer(self, output: Tensor) -> Tensor:
        """Return what is answered, (b, k): of two heads' (b, 2, k) the mean."""
        return output.mean(1) if self._two and output.ndim == 3 else output

    def _against(self, output: Tensor, answer: Tensor) -> Tensor:
        """Return the loss of logits (b, k, …) against the teacher's logits of the same shape."""
        if output.shape != answer.shape or output.shape[1] != len(self.labels):
            raise SettingError(
                f"The teacher answers {tuple(answer.shape[1:])} and the student {tuple(output.shape[1:])}; a task can "
                "be distilled where both give one number a class. Choose another task or teacher."
            )
        heat: float = self.settings.temperature
        if isinstance(self.inner, MultiLabel):
            if self.settings.kind == "hard":
                return F.binary_cross_entropy_with_logits(output, (answer > 0).float())
            return heat**2 * F.binary_cross_entropy_with_logits(output / heat, (answer / heat).sigmoid())
        if self.settings.kind == "hard":
            return F.cross_entropy(output, answer.argmax(1))
        student, taught = (output / heat).log_softmax(1), (answer / heat).log_softmax(1)
        return heat**2 * F.kl_div(student, taught, log_target=True, reduction="none").sum(1).mean()
