"""What is wrong with the outline of a COCO annotation, in words."""

from __future__ import annotations

import math
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data.instances import from_coco


def broken_outline(outline: Any) -> str:
    """Return what is wrong with a "segmentation", as the end of "its segmentation is …"; "" if it can be read.

    A polygon of too few corners is none of these: the check of the objects reports it.
    """
    if not outline:
        return ""
    if isinstance(outline, list):
        return next((why for one in outline if (why := _of_polygon(one))), "")
    if not isinstance(outline, dict):
        return "no list of polygons and no run lengths"
    return _of_runs(outline)


def _of_polygon(one: Any) -> str:
    if not isinstance(one, list):
        return "no list of polygons, each a list of x, y, x, y, …"
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in one):
        return "a polygon with a value that is no finite number"
    return f"a polygon of {len(one)} numbers, and x and y must be pairs" if len(one) % 2 else ""


def _of_runs(outline: dict[str, Any]) -> str:
    if not {"size", "counts"} <= outline.keys():
        return "no run lengths: they have a size and counts"
    try:
        from_coco(outline)
    except DataError as error:
        why = str(error).removesuffix(" Write them again.").rstrip(".")
        return f"unreadable: {why[:1].lower()}{why[1:]}"
    except (TypeError, ValueError, OverflowError):
        return "unreadable: its run lengths are no whole numbers"
    return ""
