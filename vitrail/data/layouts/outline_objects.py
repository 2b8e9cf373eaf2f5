"""Outlines of one image as the objects of a row: pieces of one group are one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.data.instances import Runs, boxes_around, from_coco, from_polygons, joined_runs
from vitrail.data.layouts.mask_tables import GROUNDS


def is_thing(outline: Mapping[str, Any]) -> bool:
    """Return whether an outline is around an object: it has a class, which is not that of the background."""
    name = outline["class"]
    return name is not None and name.strip("_").lower() not in GROUNDS


def joined(outlines: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Yield an object for each outline with a class, or for all outlines of a "group" and class.

    `size` is the (height, width) of their image, (0, 0) if unknown.
    """
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for number, one in enumerate(outlines):
        if is_thing(one):
            key = (one["class"], "group", one["group"]) if "group" in one else number
            groups.setdefault(key, []).append(one)
    for own in groups.values():
        yield {"class": own[0]["class"], **_outline(own, size), **({"of": list(size)} if any(size) else {})}


def _outline(pieces: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """Return box and outline of the pieces of one object; run lengths where one piece has them."""
    polygons = [polygon for one in pieces for polygon in one.get("polygons", ())]
    runs = [from_coco(one["rle"]) for one in pieces if "rle" in one]
    if not runs:
        points = np.concatenate([np.asarray(one, np.float64).reshape(-1, 2) for one in polygons])
        box = [*points.min(0), *points.max(0)]
        return {"box": [round(float(side), 3) for side in box], "polygons": polygons}
    drawn = [from_polygons([one], size) for one in polygons]
    whole: Runs = joined_runs([*runs, *drawn])
    return {"box": boxes_around([whole])[0].tolist(), "rle": whole.to_dict()}
