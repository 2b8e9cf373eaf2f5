"""Targets of single-label classification: reading, checking and counting labels. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.class_balance import class_weights
from vitrail.data.findings import Finding, classes
from vitrail.data.labels import count, natural, shorten, split_labels
from vitrail.data.manifest import Row
from vitrail.data.targets import Targets, tasks_of
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts

T = TypeVar("T")

_ENOUGH, _SHARED = 20, 0.8
_OTHER = {
    "mask": "masks", "boxes": "boxes", "instances": "objects with masks", "panoptic": "segments",
    "caption": "captions", "none": "images without truths",
}  # fmt: skip


def labels_of(row: Row) -> tuple[str, ...]:
    """Return the labels of a row: none, one or several."""
    return split_labels(row.target)


def named(labels: Sequence[str], most: int = 12) -> str:
    """Return a sentence that lists the labels, or only their number if they are many."""
    if len(labels) > most:
        return f"The model has {len(labels)}; `vitrail predict … --json` lists the most probable."
    return f"There are: {', '.join(labels)}."


def gathered(truth: Truth, rows: Sequence[Row], kind: str) -> Truth:
    """Return the header with the classes of the rows in natural order, 2 before 10; DataError for another kind."""
    if truth.kind not in {"class", "classes"}:
        raise DataError(f"These are {_OTHER.get(truth.kind, truth.kind)}, not classes. {tasks_of(truth)}")
    names = sorted({one for cell in {row.target for row in rows} for one in split_labels(cell)}, key=natural)
    return Truth(kind, tuple(names))


def refuse_useless(names: Sequence[str], rows: Sequence[Row], findings: Sequence[Finding]) -> None:
    """Raise DataError for fewer than two classes, or if almost every image has its own label (a measurement)."""
    if len(rows) >= _ENOUGH and len(names) > _SHARED * len(rows):
        raise DataError(
            f"has {len(names):,} labels for {len(rows):,} images. Almost every image has its own label, so these are "
            "not classes. Add a column of classes with the name label."
        )
    if len(names) < 2:
        first = findings[0].text if findings else "Add images of another class."
        raise DataError(f"has usable images of fewer than two classes ({shorten(names) or 'none'}). {first}")


class NamedTargets(Targets[T]):
    """Targets that are names from `truth.names`: the base of single-label and multi-label targets."""

    noun: ClassVar[str] = "class"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._places = {label: i for i, label in enumerate(truth.names)}

    def place(self, label: str) -> int:
        """Return the index of a class in the outputs; raise UnknownNameError, with the nearest name, if unknown."""
        if label not in self._places:
            raise UnknownNameError(self.noun, label, self.truth.names, named(self.truth.names))
        return self._places[label]

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report classes that are empty, small, unbalanced, missing in a split or spelt in two ways."""
        return classes(rows, self.strata)

    def strata(self, row: Row) -> tuple[str, ...]:
        return labels_of(row)

    def words(self, row: Row) -> str:
        return ", ".join(labels_of(row))

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        refuse_useless(self.truth.names, rows, findings)


class ClassTargets(NamedTargets[int]):
    """Targets that are the index of a row's class in `truth.names`."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        return gathered(truth, rows, "class")

    def read(self, row: Row, root: Path) -> int:
        """Return the index of the row's class; raise UnknownNameError if it has none."""
        labels = labels_of(row)
        return self.place(labels[0] if len(labels) == 1 else row.target)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Exclude an image that has no class, or several."""
        labels = labels_of(row)
        if not labels:
            hint = "If an image may have no label, use --task multilabel."
            yield Finding("no label", "no label", (row.id,), grave=True, out=True, hint=hint)
        if len(labels) > 1:
            hint = "If an image may have several labels, use --task multilabel."
            text = f"{count(len(labels), 'label')} instead of one"
            yield Finding("several labels", text, (row.id,), grave=True, out=True, hint=hint)

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the inverse frequency of each class, with mean 1 over the images: (k,)."""
        return class_weights(rows, self.truth.names, self.strata)
