"""Any number of classes an image: how they stand in a row, how they are counted. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.data.class_balance import positive_weights
from vitrail.data.manifest import Row
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import NamedTargets, gathered, labels_of


class LabelTargets(NamedTargets[tuple[int, ...]]):
    """The places of a row's classes among `truth.names`; a row may have none."""

    noun = "label"

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with the classes of the rows."""
        return gathered(truth, rows, "classes")

    def read(self, row: Row, root: Path) -> tuple[int, ...]:
        """Return the places of the row's classes."""
        return tuple(self.place(one) for one in labels_of(row))

    def describe(self) -> str:
        """Say that an image may have any number of classes."""
        return ", any number of labels an image"

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return how much a present class weighs against an absent one: (k,)."""
        return positive_weights(rows, self.truth.names, self.strata)
