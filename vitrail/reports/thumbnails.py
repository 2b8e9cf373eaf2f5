"""Small images inside a page, up to a budget, so that a report can be sent to a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vitrail import plots
from vitrail.core.errors import DataError
from vitrail.data.changed_images import load_unchanged
from vitrail.data.manifest import Row

THUMB = 112
BUDGET = 2_500_000
"""Bytes of small images in one page."""


class Thumb(NamedTuple):
    """An image as a data: address; `coarse` where its own pixels are fewer than it is shown with."""

    uri: str
    coarse: bool


class Album:
    """Makes small images of rows until the budget is spent, and counts what it had to leave out."""

    def __init__(self, root: Path, budget: int = BUDGET) -> None:
        self.root, self.left = root, budget
        self.missing = 0

    def thumb(self, row: Row) -> Thumb | None:
        """Return a row's image, or None where the budget is spent, or the image gone or changed."""
        if self.left <= 0:
            self.missing += 1
            return None
        try:
            image = Image.fromarray(load_unchanged(self.root, row).image)
        except DataError:  # gone, or another one than was scored; a page without it is better than none
            self.missing += 1
            return None
        coarse = max(image.size) < THUMB
        image.thumbnail((THUMB, THUMB))
        uri = plots.data_uri(image) if coarse else plots.photo_uri(image)
        self.left -= len(uri)
        return Thumb(uri, coarse)
