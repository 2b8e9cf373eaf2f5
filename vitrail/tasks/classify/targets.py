"""One class an image: how it stands in a row, what may be wrong with it, how it is counted. No torch."""

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
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts

T = TypeVar("T")

_ENOUGH, _SHARED = 20, 0.8
_OTHER = {"mask": "masks", "boxes": "boxes", "caption": "captions", "none": "images without truths"}


def labels_of(row: Row) -> tuple[str, ...]:
    """Return the classes that a row names: none, one or several."""
    return split_labels(row.target)


def named(labels: Sequence[str], most: int = 12) -> str:
    """Return which labels there are, in words; of many only how many."""
    if len(labels) > most:
        return f"The model knows {len(labels)}; `vitrail predict … --json` names the likeliest."
    return f"There are: {', '.join(labels)}."


def gathered(truth: Truth, rows: Sequence[Row], kind: str) -> Truth:
    """Return the header with the classes of the rows in natural order, 2 before 10; DataError of another kind."""
    if truth.kind not in {"class", "classes"}:
        raise DataError(
            f"These are {_OTHER.get(truth.kind, truth.kind)}, and no classes. Name a task that learns them."
        )
    names = sorted({one for cell in {row.target for row in rows} for one in split_labels(cell)}, key=natural)
    return Truth(kind, tuple(names))


def refuse_useless(names: Sequence[str], rows: Sequence[Row], findings: Sequence[Finding]) -> None:
    """Refuse fewer than two classes, and labels that hardly two images share: these are measurements or names."""
    if len(rows) >= _ENOUGH and len(names) > _SHARED * len(rows):
        raise DataError(
            f"has {len(names):,} labels for {len(rows):,} images: hardly two share one, so they are no classes. "
            "Give a column of classes, and call it label."
        )
    if len(names) < 2:
        first = findings[0].text if findings else "Add images of another class."
        raise DataError(f"has usable images of fewer than two classes ({shorten(names) or 'none'}). {first}")


class NamedTargets(Targets[T]):
    """Truths that are names among `truth.names`: what one class an image and several have in common."""

    noun: ClassVar[str] = "class"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._places = {label: i for i, label in enumerate(truth.names)}

    def place(self, label: str) -> int:
        """Return the place of a class among the outputs; UnknownNameError names the nearest."""
        if label not in self._places:
            raise UnknownNameError(self.noun, label, self.truth.names, named(self.truth.names))
        return self._places[label]

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Say which classes are empty, tiny, out of proportion, missing in a split or spelt in two ways."""
        return classes(rows, self.strata)

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the row's classes."""
        return labels_of(row)

    def words(self, row: Row) -> str:
        """Return the row's classes, nothing where it has none."""
        return ", ".join(labels_of(row))

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Refuse fewer than two classes, and measurements."""
        refuse_useless(self.truth.names, rows, findings)


class ClassTargets(NamedTargets[int]):
    """The place of a row's class among `truth.names`."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with the classes of the rows."""
        return gathered(truth, rows, "class")

    def read(self, row: Row, root: Path) -> int:
        """Return the place of the row's class; UnknownNameError where there is none."""
        labels = labels_of(row)
        return self.place(labels[0] if len(labels) == 1 else row.target)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Keep out an image that has no class, or several."""
        labels = labels_of(row)
        if not labels:
            hint = "Where an image may have none: --task multilabel."
            yield Finding("no label", "no label", (row.id,), grave=True, out=True, hint=hint)
        if len(labels) > 1:
            hint = "Where an image may have several: --task multilabel."
            text = f"{count(len(labels), 'label')} where one is learned"
            yield Finding("several labels", text, (row.id,), grave=True, out=True, hint=hint)

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the inverse of each class's share, 1 on the average over images: (k,)."""
        return class_weights(rows, self.truth.names, self.strata)
