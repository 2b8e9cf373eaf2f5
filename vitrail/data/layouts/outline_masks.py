"""Types for boxes and outlines on images, shared by the readers of all formats."""

from __future__ import annotations

from typing import Any, NamedTuple

from vitrail.data.layouts.base import Entry, Tree


class Box(NamedTuple):
    """One box on one image, in pixels; the numbers may lie outside. `more` holds outlines and flags."""

    label: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom
    more: dict[str, Any]


class OutlinedImage(NamedTuple):
    """One image by its name in the tree, and its boxes.

    `trouble` says, as a predicate, why it cannot be used; `size` is the (height, width) that its file of annotations
    states, (0, 0) where it states none.
    """

    name: str
    split: str
    boxes: list[Box]
    trouble: str = ""
    size: tuple[int, int] = (0, 0)

    def entry(self, tree: Tree, target: str) -> Entry:
        """Return its entry with a truth; one that is in trouble may be no file of the tree."""
        if self.name not in tree.files:
            return Entry(self.name, self.name, "", self.split, trouble=self.trouble)
        return tree.entry(self.name, target, self.split)._replace(trouble=self.trouble)


class Drawn(NamedTuple):
    """What files of annotations say: the images, what was left aside, as sentences, and the classes in their order.

    Classes that occur in boxes only are missing in `names`; formats without a list of classes have none.
    """

    pictures: list[OutlinedImage]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
