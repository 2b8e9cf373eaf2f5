"""What a model file holds of "none of these" and of label sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from vitrail.core.config import Settings
from vitrail.layers.heads import Output
from vitrail.layers.mahalanobis import DistanceSpec, Novelty

if TYPE_CHECKING:
    from torch import Tensor

    from vitrail.tasks.base import Ask
    from vitrail.tasks.result import Evaluation

ERROR = 0.05
"""Share of images of known classes that may be taken for none of them."""

EACH_CLASS = 40
"""Smallest number of images of a class for a promise about this class alone."""


@runtime_checkable
class Abstaining(Protocol):
    """A task that has label sets, and whose predictions may be "none of these"."""

    abstention: Abstention | None

    def nonconformity(self, output: Output) -> Tensor:
        """Return how badly each label fits: (b, k)."""
        ...

    def limits(self, evaluation: Evaluation, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the limits of an `Abstention` from evaluated images of known classes, with these settings."""
        ...

    def refuse_sets(self, error: float) -> None:
        """Raise a SettingError if label sets with this error cannot be promised."""
        ...

    def remarks(self, ask: Ask, novel: bool) -> Sequence[str]:
        """Return sentences that explain the numbers of predictions, of which some are `novel`."""
        ...


class Range(Settings):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Detection(Settings):
    """How well unknown images are told from known ones: AUROC, the share noticed, and the numbers of images."""

    auroc: Range
    noticed: Range
    known: int
    unknown: int


class DistancePart(Settings):
    """One distance of the novelty score: the place and the width of its vectors, and whether it is relative."""

    place: str
    width: Annotated[int, Field(ge=1)]
    relative: bool


class Abstention(Settings):
    """The novelty score and the label sets of a model.

    `parts` and `classes` are the shapes of the tensors that compute the score. `novelty` are the sorted scores of
    images of known classes; `label_scores` are, for each class, the sorted scores of the true label of such images.
    `near` is measured on classes that were left out of the fit, `far` on other kinds of images. `reason` says why there
    is no novelty score, `learned` whether the network itself has learned the classes that were left out, and `split`
    which images the scores are from.
    """

    error: float = ERROR
    parts: tuple[DistancePart, ...] = ()
    classes: int = 0
    novelty: tuple[float, ...] = ()
    label_scores: tuple[tuple[float, ...], ...] = ()
    near: Detection | None = None
    far: dict[str, Detection] = Field(default_factory=dict)
    learned: bool = True
    split: Literal["validation", "held-out"] = "validation"
    reason: str = ""


def novelty_of(abstention: Abstention) -> Novelty:
    """Return the module that computes the novelty score, without its numbers."""
    parts = [DistanceSpec(part.place, part.width, part.relative) for part in abstention.parts]
    return Novelty(parts, abstention.classes)
