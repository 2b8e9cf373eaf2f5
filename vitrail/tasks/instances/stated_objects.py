"""The objects of one image as a row of a manifest states them: a JSON list, with outlines beside the boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.instances import Runs, from_coco, from_polygons
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.parts import is_window
from vitrail.tasks.detect.box_targets import StatedBox, stated_box

_CORNERS = 6
"""Numbers of the shortest polygon, a triangle."""


_FORM = (
    "Correct it in the annotations, or export them again; a manifest has each object as "
    '{"class": name, "box": [left, top, right, bottom], "polygons": [[x, y, x, y, …]]}.'
)


class StatedObject(NamedTuple):
    """One object of a row: its box, and its outline as polygons (x, y, x, y, …) or as run lengths of COCO."""

    box: StatedBox
    polygons: Sequence[Sequence[float]] = ()
    rle: Mapping[str, Any] | None = None

    @property
    def is_outlined(self) -> bool:
        """Return whether it has an outline with an area."""
        return self.rle is not None or any(len(one) >= _CORNERS for one in self.polygons)

    @property
    def is_short(self) -> bool:
        """Return whether it has polygons, but none with three corners."""
        return bool(self.polygons) and not self.is_outlined

    @property
    def size(self) -> tuple[int, int]:
        """Return the (height, width) of the image for which it was written, (0, 0) if unknown."""
        if self.rle is None:
            return self.box.stated_size
        height, width = self.rle["size"]
        return int(height), int(width)

    def mask(self, size: tuple[int, int]) -> Runs | None:
        """Return its mask in an image (height, width), None without an outline.

        Raises:
            DataError: the outline is broken, or of an image of another size.
        """
        if self.rle is not None:
            runs = from_coco(self.rle)
            if runs.size != size:
                raise DataError(
                    f"These run lengths are of an image of {runs.size[1]} x {runs.size[0]} on one of {size[1]} x "
                    f"{size[0]}. Write them again."
                )
            return runs
        outlines = [one for one in self.polygons if len(one) >= _CORNERS]
        return from_polygons(outlines, size) if outlines else None


def stated_objects(row: Row) -> list[StatedObject]:
    """Return the objects of a row in their order.

    Raises:
        DataError: the target is not a list of objects with a class, a box, and an outline of finite numbers.
    """
    if not row.target:
        raise DataError(f"{row.id} has no objects. For an image without any object, write an empty list: []")
    try:
        listed = json.loads(row.target)
    except ValueError as error:
        raise DataError(f"{row.id} has objects that are no JSON ({error}). {_FORM}") from error
    if not isinstance(listed, list):
        raise DataError(f"{row.id} has objects that are no list. {_FORM}")
    return [_numbered(one, number, row) for number, one in enumerate(listed, 1)]


def _numbered(stated: Any, number: int, row: Row) -> StatedObject:
    """Return an object of a row; DataError with its number, from 1, if it cannot be read."""
    try:
        return _stated_object(stated)
    except KeyError as error:
        why = f"has no {error.args[0]!r}"
    except _BrokenOutline as error:
        why = str(error)
    except (ValueError, TypeError, AttributeError):
        why = "has a part of a wrong kind"
    raise DataError(f"{row.id}: object {number} of its list {why}. {_FORM}")


def size_of(stated: Sequence[StatedObject], row: Row, root: Path) -> tuple[int, int]:
    """Return the (height, width) of a row's whole image, as the objects state it, else of its file."""
    known = next((one.size for one in stated if any(one.size)), None)
    if known is not None:
        return known
    height, width = load(root, row.path, part="" if is_window(row.part) else row.part).image.shape[:2]
    return height, width


class _BrokenOutline(ValueError):
    """An outline is broken; the message is a predicate of its object."""


def _stated_object(stated: Mapping[str, Any]) -> StatedObject:
    polygons, rle = stated.get("polygons") or (), stated.get("rle")
    for one in polygons:
        if isinstance(one, str) or not np.isfinite(np.asarray(one, np.float64)).all() or len(one) % 2:
            raise _BrokenOutline("has a polygon that is no list of finite numbers x, y, x, y, …")
    if rle is not None and not (isinstance(rle, Mapping) and {"size", "counts"} <= rle.keys()):
        raise _BrokenOutline("has run lengths without a size and counts")
    return StatedObject(stated_box(stated), polygons, rle)
