"""One number an image: how it stands in a row, and what may be wrong with it. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.data.findings import Finding
from vitrail.data.manifest import Row
from vitrail.data.targets import Targets

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts


class NumberTargets(Targets[float]):
    """The number in a row's cell."""

    def read(self, row: Row, root: Path) -> float:
        """Return the number of a row."""
        return float(row.target)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Keep out an image that has no number."""
        try:
            float(row.target)
        except ValueError:
            hint = "Give each image a number."
            yield Finding("no number", "no number", (row.id,), grave=True, out=True, hint=hint)
