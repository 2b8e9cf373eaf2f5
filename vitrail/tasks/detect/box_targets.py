"""The boxes of one image as a row of a manifest states them: a JSON list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.labels import label
from vitrail.data.manifest import Row


class StatedBox(NamedTuple):
    """One box of a row: its class, its corners in pixels, and whether it is a crowd or difficult (`ignored`).

    `stated_size` is the (height, width) of the image for which the box was written, (0, 0) if unknown.
    """

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool = False
    stated_size: tuple[int, int] = (0, 0)

    @property
    def has_area(self) -> bool:
        """Return whether both sides have a length."""
        left, top, right, bottom = self.corners
        return right > left and bottom > top


def stated_boxes(row: Row) -> list[StatedBox]:
    """Return the boxes of a row in their order.

    Raises:
        DataError: the target is not a list of boxes with a class and four finite numbers.
    """
    if not row.target:
        raise DataError(f"{row.id} has no boxes. For an image without any object, write an empty list: []")
    try:
        stated = json.loads(row.target)
        return [stated_box(one) for one in stated]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{row.id} has boxes that cannot be read ({type(error).__name__}: {error}). Write each as "
            '{"class": name, "box": [left, top, right, bottom]}.'
        ) from error


def stated_box(stated: Mapping[str, Any]) -> StatedBox:
    """Return one box of a list; raise KeyError, TypeError or ValueError if a part is missing or wrong."""
    left, top, right, bottom = (float(number) for number in stated["box"])
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("a corner is not a number")
    height, width = stated.get("of") or (stated.get("rle") or {}).get("size") or (0, 0)
    ignored = bool(stated.get("crowd") or stated.get("difficult"))
    return StatedBox(
        label(str(stated["class"])), (left, top, right, bottom), ignored, (int(height), int(width))
    )
