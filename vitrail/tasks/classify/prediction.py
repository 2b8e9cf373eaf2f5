"""The prediction of labels: all of them in order of probability, and "none of these"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict


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


@dataclass(frozen=True, slots=True)
class Ranked(Names):
    """All classes of one image, the most probable first, with their probabilities.

    `unlike` is the share of known images that fit their classes better than this one, `none_of_these` whether the
    image is of none of the classes by the model's novelty score; both are None if the model has none. `label_set` are
    the labels that cannot be ruled out, if they were asked for.
    """

    unlike: float | None = None
    none_of_these: bool | None = None
    label_set: tuple[str, ...] | None = None

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
        row = {"label": self.label, "probability": round(self.probability, 6), **self._abstention()}
        return [row if self.label_set is None else {**row, "set": "|".join(self.label_set)}]

    def to_dict(self) -> dict[str, Any]:
        """Return label, probability and the five most probable classes."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        plain = {"label": self.label, "probability": round(self.probability, 6), "top": top}
        plain |= self._abstention()
        return plain if self.label_set is None else {**plain, "set": list(self.label_set)}

    def _abstention(self) -> dict[str, Any]:
        if self.unlike is None:
            return {}
        return {"none_of_these": self.none_of_these, "unlike": round(self.unlike, 6)}

    def __str__(self) -> str:
        text = f"{self.label} {self.probability:.1%}"
        if self.none_of_these and self.unlike is not None:
            text = f"none of these ({self.unlike:.1%}), most like {text}"
        if self.label_set is None:
            return text
        return f"{text}, set: {', '.join(self.label_set) or 'empty, none of these'}"


def first(labels: Sequence[str], probabilities: Sequence[float], choice: str) -> Order:
    """Return labels and probabilities with `choice` moved to the front."""
    place = labels.index(choice)
    order = [place, *(i for i in range(len(labels)) if i != place)]
    return {
        "labels": tuple(labels[i] for i in order),
        "probabilities": tuple(probabilities[i] for i in order),
    }
