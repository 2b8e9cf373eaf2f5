"""Two small tasks' halves that need no network: masks with a void value, and boxes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.findings import Finding
from vitrail.data.image_facts import Facts
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth

Mask = NDArray[np.uint8]


class ToyMask(Targets[Mask]):
    """Two classes, 255 counts nowhere."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        if truth.kind != "mask":
            raise DataError("These are no masks.")
        return Truth("mask", ("ground", "cell"), ((0, 0, 0), (255, 0, 0)), void=255)

    def read(self, row: Row, root: Path) -> Mask:
        return load(root, row.target, channels=1).image[..., 0]

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        if not row.target:
            yield Finding("no mask", "no mask", (row.id,), grave=True, out=True, hint="Draw one.")
            return
        mask = self.read(row, root)
        if mask.shape != facts.size:
            text = f"a mask of {mask.shape[1]} × {mask.shape[0]} px"
            yield Finding("mask size", text, (row.id,), grave=True, out=True, hint="Draw it again.")
        if not set(np.unique(mask)) <= {0, 1, self.truth.void}:
            yield Finding("mask values", "values of no class", (row.id,), grave=True, out=True)

    def same(self, one: Row, other: Row, root: Path) -> bool:
        return bool(np.array_equal(self.read(one, root), self.read(other, root)))


class ToyBoxes(Targets[list[dict[str, Any]]]):
    """Boxes in pixels."""

    def read(self, row: Row, root: Path) -> list[dict[str, Any]]:
        boxes: list[dict[str, Any]] = json.loads(row.target)
        return boxes

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        height, width = facts.size
        for one in self.read(row, root):
            left, top, right, bottom = one["box"]
            if left < 0 or top < 0 or right > width or bottom > height:
                yield Finding("outside", "a box outside the image", (row.id,), grave=True)
                return

    def strata(self, row: Row) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one["class"] for one in json.loads(row.target)))

    def words(self, row: Row) -> str:
        counts = Counter(one["class"] for one in json.loads(row.target))
        return ", ".join(f"{number} {name}" for name, number in counts.items()) or "nothing"
