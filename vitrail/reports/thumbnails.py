"""Thumbnails embedded in a page, up to a size budget, so that a report can be sent to a colleague."""

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
"""Bytes of thumbnails in one page."""


class Thumb(NamedTuple):
    """An image as a data: URI; `coarse` if it is displayed larger than its own pixels."""

    uri: str
    coarse: bool


class Album:
    """Makes thumbnails until the budget is used up, and counts the images left out."""

    def __init__(self, root: Path, budget: int = BUDGET, side: int = THUMB) -> None:
        self.root, self.left, self.side = root, budget, side
        self.missing = 0

    def thumb(self, row: Row) -> Thumb | None:
        """Return the thumbnail of a row, or None if the budget is used up, or the image is missing or changed."""
        if self.left <= 0:
            self.missing += 1
            return None
        try:
            image = Image.fromarray(load_unchanged(self.root, row).image)
        except DataError:  # missing or changed since it was scored; make the page without it
            self.missing += 1
            return None
        coarse = max(image.size) < self.side
        image.thumbnail((self.side, self.side))
        uri = plots.data_uri(image) if coarse else plots.photo_uri(image)
        self.left -= len(uri)
        return Thumb(uri, coarse)
