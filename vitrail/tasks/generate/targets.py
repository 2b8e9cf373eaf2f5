"""The truths of generation: the class of each image. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitrail.core.errors import DataError
from vitrail.data.manifest import Row
from vitrail.tasks.classify.targets import ClassTargets, refuse_useless

if TYPE_CHECKING:
    from vitrail.data.findings import Finding


class GenerateTargets(ClassTargets):
    """The index of the class in `truth.names`; a single class is enough to make images of it."""

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Raise DataError without any image, or if almost every image has a class of its own."""
        if not rows or not self.truth.names:
            raise DataError(
                "has no image with a class. Put the images into folders named after their classes."
            )
        if len(self.truth.names) > 1:
            refuse_useless(self.truth.names, rows, findings)
