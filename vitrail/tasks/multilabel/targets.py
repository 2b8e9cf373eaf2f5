"""Targets of multi-label classification: reading and counting labels. No torch."""

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
    """Targets that are the indices of a row's labels in `truth.names`; a row may have none."""

    noun = "label"

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        return gathered(truth, rows, "classes")

    def read(self, row: Row, root: Path) -> tuple[int, ...]:
        return tuple(self.place(one) for one in labels_of(row))

    def describe(self) -> str:
        return ", any number of labels per image"

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the weight of a present label relative to an absent one: (k,)."""
        return positive_weights(rows, self.truth.names, self.strata)
