"""Panoptic segments as another task takes them: things as boxes, or all classes as masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.instances import Runs, from_coco, from_polygons, mask_areas
from vitrail.data.labels import shorten
from vitrail.data.layouts.base import Entry, Layout
from vitrail.data.manifest import dump_target
from vitrail.data.panoptic import painting_order
from vitrail.data.truth import Truth

Segment = Mapping[str, Any]


def as_wanted(layout: Layout, wanted: str) -> Layout:
    """Return a reading of panoptic segments with the kind of truth `wanted`, if they can be of it; else unchanged.

    Raises:
        DataError: boxes are wanted, and no class is a thing.
    """
    truth = layout.truth
    if truth.kind != "panoptic" or wanted not in {"boxes", "mask"}:
        return layout
    if wanted == "mask":
        note = "Areas and things are learned as classes, and what no segment covers counts nowhere."
        masks = tuple(_as_mask(entry, truth.things) for entry in layout.found)
        return replace(layout, found=masks, truth=Truth("mask", truth.names), notes=(*layout.notes, note))
    if not truth.things:
        raise DataError(
            f"No class of these segments is a thing: {shorten(truth.names, 12)}. Name things: --things car,pedestrian; "
            "or learn the areas: --task segment"
        )
    note = f"Only things are learned: {shorten(truth.things, 12)}."
    objects = tuple(_as_objects(entry, truth.things) for entry in layout.found)
    return replace(layout, found=objects, truth=Truth("instances", truth.things), notes=(*layout.notes, note))


def _as_objects(entry: Entry, things: Sequence[str]) -> Entry:
    if not entry.target:
        return entry
    return entry._replace(
        target=dump_target([one for one in json.loads(entry.target) if one["class"] in things])
    )


def _as_mask(entry: Entry, things: Sequence[str]) -> Entry:
    """Return the entry with outlines to paint, the topmost last, above void."""
    if not entry.target:
        return entry
    segments: list[Segment] = json.loads(entry.target)
    size = next((tuple(found) for one in segments if any(found := _size(one))), None)
    if size is None:
        return entry._replace(
            target="", trouble=entry.trouble or "has no segment: add its segments, or remove it"
        )
    try:
        masks = [_runs(one, (size[0], size[1])) for one in segments]
    except DataError as error:
        return entry._replace(target="", trouble=f"has a broken segment: {str(error).rstrip('.')}")
    kinds = np.array([one["class"] in things for one in segments], np.bool_)
    crowds = np.array([bool(one.get("crowd")) for one in segments], np.bool_)
    order = painting_order(mask_areas(masks), crowds, kinds)
    void = {"class": None, "rle": {"size": list(size), "counts": [0, size[0] * size[1]]}}
    painted = [{"class": segments[place]["class"], "rle": masks[place].to_dict()} for place in order]
    return entry._replace(target=dump_target({"size": list(size), "objects": [void, *painted]}))


def _size(one: Segment) -> Sequence[int]:
    return (one.get("rle") or {}).get("size") or one.get("of") or (0, 0)


def _runs(one: Segment, size: tuple[int, int]) -> Runs:
    return from_coco(one["rle"]) if "rle" in one else from_polygons(one.get("polygons", ()), size)
