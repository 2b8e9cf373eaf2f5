"""Distillation: learn from the truth and from a teacher.

The methods are those of Hinton et al. 2015, arXiv:1503.02531, and of DeiT, arXiv:2012.12877, §3.

Only training is different: the stored model is one of the wrapped task and contains nothing of the teacher. In a
network with a distillation token (`deit_*_distilled`) the class token learns the labels and the other token the
teacher, and a prediction is the mean of both; in any other network one head learns both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Following, Losses, Task
from vitrail.tasks.wrappers.settings import DistillSettings
from vitrail.tasks.wrappers.wrapper import Wrapper

Teacher = Callable[[Tensor], Output]
"""Input images of the student (b, channels, height, width) -> the teacher's output, without gradient."""

SHARES: Mapping[str, float] = MappingProxyType({"hard": 0.5, "soft": 0.1})
"""Share of the teacher in the loss, from the paper (§3; for soft distillation λ of its section 5)."""


class Distill(Wrapper):
    """Another task, trained on its truths and on a teacher: (1 - share) · own loss + share · teacher loss.

    hard: against the teacher's top class (eq. 3). soft: τ² KL(teacher ‖ student) of outputs softened by τ (eq. 2),
    mean over images. The teacher loss is the wrapped task's `follow`.
    """

    name = "distill"
    Settings = DistillSettings

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        named = (settings or {}).get("task")
        if named == self.name:
            raise SettingError("Distillation cannot be applied to distillation. Choose another task.")
        super().__init__(truth, settings)
        if type(self.inner).training_loss is not Task.training_loss or not hasattr(self.inner, "follow"):
            raise SettingError(
                f"The task {self.settings.task!r} does not support a teacher. Remove --teacher, or use the task "
                "classify or multilabel."
            )
        self.share = self.settings.share or SHARES[self.settings.kind]
        self.by = Following(self.settings.kind, self.settings.temperature)
        self._teacher: Teacher | None = None

    def taught_by(self, teacher: Teacher) -> None:
        """Set the teacher, which training requires."""
        self._teacher = teacher

    def deployed_task(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the wrapped task, because a trained model needs no teacher."""
        return self.inner.deployed_task(self.settings.task)

    def head(self, spec: FeatureSpec) -> Head:
        """Return the wrapped task's head; a head with separate outputs for the teacher is initialised twice.

        The second initialisation keeps the initial weights of such a network equal to those of earlier versions.
        """
        head = self.inner.head(spec)
        return self.inner.head(spec) if head.apart else head

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return both losses of a batch, each multiplied by its share.

        Raises:
            SettingError: there is no teacher, or its outputs have another shape than the student's.
        """
        if self._teacher is None:
            raise SettingError(
                f"The teacher {self.settings.teacher!r} is not loaded. Train with `vitrail train --teacher`."
            )
        ready = self.inner.prepare(batch, rng, progress)
        output = self.inner.answer(network, ready, Ask())
        teacher = self._teacher(ready.images)
        self._refuse_other_shapes(output, teacher)
        labels = self.inner.loss(_part(output, "labels"), ready.targets)
        followed = self.inner.follow(_part(output, "teacher"), teacher, self.by)  # type: ignore[attr-defined]
        own = {name: (1 - self.share) * part for name, part in labels.parts.items()}
        return Losses({**own, "teacher": self.share * followed})

    def _refuse_other_shapes(self, output: Output, teacher: Output) -> None:
        for name in self.outputs:
            ours, theirs = output[name].shape[1:], teacher[name].shape[1:]
            if ours != theirs:
                raise SettingError(
                    f"The teacher's output has shape {tuple(theirs)} and the student's {tuple(ours)}. Distillation "
                    "needs equal shapes. Choose another task or teacher."
                )


def _part(output: Output, whom: str) -> Output:
    """Return the output for the labels or for the teacher; a head without separate outputs has one for both."""
    separate = output.get(f"train.{whom}")
    return output if separate is None else {"logits": separate}
