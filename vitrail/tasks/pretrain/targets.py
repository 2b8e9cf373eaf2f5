"""The truths of masked pretraining: there are none, whatever labels the images may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.data.manifest import Row
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from vitrail.data.findings import Finding
    from vitrail.data.image_facts import Facts

NONE = Truth("none")
"""The header of images without truths."""


class PretrainTargets(Targets[None]):
    """Images only. Truths of every kind are left aside, so labelled images can be pretrained on as well."""

    kinds = ("class", "classes", "mask", "boxes", "instances", "panoptic", "caption")
    """Kinds of truth whose images it takes, besides those without any."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header of images without truths."""
        return NONE

    def read(self, row: Row, root: Path) -> None:
        """Return nothing."""
        return

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Find nothing: there is no truth that could be wrong."""
        return iter(())

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return True: equal images without truths never contradict each other."""
        return True

    def words(self, row: Row) -> str:
        """Return "": an image has no truth."""
        return ""
