"""Learning from a teacher beside the truth: Hinton et al. 2015, arXiv:1503.02531; DeiT, arXiv:2012.12877, §3.

Only training differs: the model that is kept is one of the wrapped task, with nothing of the teacher in it. A
network with a distillation token (`deit_*_distilled`) answers the labels by its class token and the teacher by
the other, and with the mean of both when it predicts; any other network answers both with its one head.
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
"""Images as the student gets them (b, channels, height, width) -> the teacher's output, without gradient."""

SHARES: Mapping[str, float] = MappingProxyType({"hard": 0.5, "soft": 0.1})
"""The teacher's share of the loss in the paper (§3; for soft distillation λ of its section 5)."""


class Distill(Wrapper):
    """Another task, learned from its truths and from a teacher: (1 - share) · own loss + share · teacher's.

    hard: against the teacher's choice (eq. 3). soft: τ² KL(teacher ‖ student) of answers softened by τ (eq. 2), mean
    over images. What is compared is the wrapped task's `follow`.
    """

    name = "distill"
    Settings = DistillSettings

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        named = (settings or {}).get("task")
        if named == self.name:
            raise SettingError("A task that is distilled cannot be distillation itself; name another.")
        super().__init__(truth, settings)
        if type(self.inner).training_loss is not Task.training_loss or not hasattr(self.inner, "follow"):
            raise SettingError(
                f"The task {self.settings.task!r} has no way to follow a teacher, or learns in a way of its own that a "
                "teacher would replace. Leave --teacher out, or take classify or multilabel."
            )
        self.share = self.settings.share or SHARES[self.settings.kind]
        self.by = Following(self.settings.kind, self.settings.temperature)
        self._teacher: Teacher | None = None

    def taught_by(self, teacher: Teacher) -> None:
        """Take a teacher; without one nothing can be learned."""
        self._teacher = teacher

    def deployed_task(self, name: str) -> tuple[str, Task[Any, Any]]:
        """Return the wrapped task: a trained model needs no teacher."""
        return self.inner.deployed_task(self.settings.task)

    def head(self, spec: FeatureSpec) -> Head:
        """Return the wrapped task's head; one that answers the teacher apart is drawn twice.

        The second draw keeps the first weights of such a network those that every version of it has begun with.
        """
        head = self.inner.head(spec)
        return self.inner.head(spec) if head.apart else head

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return both losses of a batch, each with its share.

        Raises:
            SettingError: there is no teacher, or its outputs are not of the student's shape.
        """
        if self._teacher is None:
            raise SettingError(
                f"The teacher {self.settings.teacher!r} was not opened; train with `vitrail train --teacher`."
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
                    f"The teacher answers {tuple(theirs)} and the student {tuple(ours)}; a task can be distilled "
                    "where both answer in one shape. Choose another task or teacher."
                )


def _part(output: Output, whom: str) -> Output:
    """Return the answer that a head with two gives to the labels or to the teacher; of any other its one answer."""
    apart = output.get(f"train.{whom}")
    return output if apart is None else {"logits": apart}
