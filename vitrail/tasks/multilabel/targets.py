"""Any number of classes a picture: how they stand in a row, how they are counted. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import UnknownNameError
from vitrail.data.balance import positive_weights
from vitrail.data.findings import Finding, classes
from vitrail.data.manifest import Row
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import gathered, labels_of, named, refuse_useless


class LabelTargets(Targets[tuple[int, ...]]):
    """The places of a row's classes among `truth.names`; a row may have none."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._places = {label: i for i, label in enumerate(truth.names)}

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with the classes of the rows."""
        return gathered(truth, rows, "classes")

    def read(self, row: Row, root: Path) -> tuple[int, ...]:
        """Return the places of the row's classes."""
        return tuple(self.place(one) for one in labels_of(row))

    def place(self, label: str) -> int:
        """Return the place of one class among the outputs; UnknownNameError names the nearest."""
        if label not in self._places:
            raise UnknownNameError("label", label, self.truth.names, named(self.truth.names))
        return self._places[label]

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Say which classes are empty, tiny, out of proportion, missing in a split or spelt in two ways."""
        return classes(rows, self.strata)

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the row's classes."""
        return labels_of(row)

    def words(self, row: Row) -> str:
        """Return the row's classes; nothing where it has none."""
        return ", ".join(labels_of(row))

    def describe(self) -> str:
        """Say that a picture may have any number of classes."""
        return ", any number of labels a picture"

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Refuse fewer than two classes, and measurements."""
        refuse_useless(self.truth.names, rows, findings)

    def class_weights(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return how much a present class weighs against an absent one: (k,)."""
        return positive_weights(rows, self.truth.names, self.strata)
