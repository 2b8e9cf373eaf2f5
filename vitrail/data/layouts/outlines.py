"""Outlines as masks: polygons and run lengths of COCO, YOLO and CVAT, and LabelMe's files, one a picture."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from vitrail.core.errors import DataError
from vitrail.data.find import Finder
from vitrail.data.layouts import boxes as box_files
from vitrail.data.layouts import mask_files
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.mask_tables import BACKGROUND, GROUNDS, Kind
from vitrail.data.manifest import dump_target
from vitrail.data.names import count, label, natural, some
from vitrail.data.truth import Truth

Object = dict[str, Any]

_CORNERS = 64
"""Corners of a circle that is written as an outline."""


class _Painted(NamedTuple):
    """A picture by its name in the tree, its (height, width), and what is painted on it, in order."""

    name: str
    size: tuple[int, int]
    objects: list[Object]
    split: str = ""


def look(tree: Tree, *, boxes: bool) -> Layout | None:
    """Return pictures with what is painted on them: LabelMe's, and, where they are asked for, outlines beside boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    return _labelme(tree) or (_of_boxes(tree) if boxes else None)


def _of_boxes(tree: Tree) -> Layout | None:
    kind = box_files.kind_of(tree)
    if kind is None:
        return None
    name, because, pictures = kind
    found, bare = [], 0
    for one in pictures:
        outlined = [box for box in one.boxes if {"polygons", "rle"} & box.more.keys()]
        bare += len(one.boxes) - len(outlined)
        objects = [_object(None if box.more.get("crowd") else label(box.label), box.more) for box in outlined]
        ordered = [objects[i] for i in sorted(range(len(objects)), key=lambda i: -_area(outlined[i].corners))]
        found.append(_Painted(one.name, (0, 0), ordered, one.split))
    if not any(one.objects for one in found):
        return None
    notes = [f"{count(bare, 'box', 'boxes')} without an outline left aside."] if bare else []
    sized = [one._replace(size=_size(tree, one.name)) for one in found]
    notes.append("Where outlines overlap, the smaller one lies on top; crowds count nowhere.")
    return _layout(tree, sized, f"{name} outlines, because {because}", notes)


def _object(kind: str | None, more: Mapping[str, Any]) -> Object:
    return {"class": kind, **{key: more[key] for key in ("polygons", "rle") if key in more}}


def _area(corners: Sequence[float]) -> float:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def _size(tree: Tree, name: str) -> tuple[int, int]:
    """Return the (height, width) of an upright picture; (0, 0) where it cannot be read: its own check says why."""
    try:
        with Image.open(BytesIO(tree.read(name))) as image:
            lying = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
            return image.size if lying else (image.height, image.width)
    except (OSError, DataError, SyntaxError, ValueError):
        return 0, 0


def _labelme(tree: Tree) -> Layout | None:
    """Read LabelMe's files: one a picture, with shapes, each with a label and points."""
    names = [name for name in tree.files if name.lower().endswith(".json")]
    if not names or (not _is_labelme(tree.read(names[0])) and not _is_labelme(tree.read(names[-1]))):
        return None
    find = Finder({name: name for name in tree.pictures}, tree.root)
    found: list[_Painted] = []
    aside: Counter[str] = Counter()
    lonely = []
    for name in names:
        data = tree.read(name)
        if not _is_labelme(data):
            continue
        content = _content(data, name)
        folder = name.rpartition("/")[0]
        picture, trouble = find(str(content.get("imagePath") or ""), f"{folder}/" if folder else "")
        if trouble:
            picture, trouble = find(
                name.rpartition("/")[2].rpartition(".")[0], f"{folder}/" if folder else ""
            )
        if trouble:
            lonely.append(name)
            continue
        found.append(_painted(content, picture, name, aside))
    if not found:
        return None
    notes = [f"{count(number, kind)} left aside: no area." for kind, number in aside.items()]
    if lonely:
        notes.append(f"{count(len(lonely), 'file')} whose picture is not here: {some(lonely)}.")
    because = f"LabelMe outlines, because {count(len(found), 'JSON file')} such as {names[0]} hold shapes with labels"
    return _layout(tree, found, because, notes)


def _is_labelme(data: bytes) -> bool:
    return b'"shapes"' in data and b'"imagePath"' in data


def _content(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(data)
        if isinstance(content["shapes"], list):
            return dict(content)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name} is broken ({error}). Export the annotations again.") from error
    raise DataError(f"{name} is broken: its shapes are no list. Export the annotations again.")


def _painted(content: Mapping[str, Any], picture: str, name: str, aside: Counter[str]) -> _Painted:
    try:
        size = int(content["imageHeight"]), int(content["imageWidth"])
        objects = [one for shape in content["shapes"] for one in _shape(shape, size, aside)]
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise DataError(
            f"{name} lacks a part or has a wrong one ({type(error).__name__}: {error}). Export it again."
        ) from error
    return _Painted(picture, size, objects)


def _shape(shape: Mapping[str, Any], size: tuple[int, int], aside: Counter[str]) -> Iterator[Object]:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    named = label(str(shape["label"]))
    own = None if Kind(named).is_void else named
    if kind == "polygon" and len(points) >= 3:
        yield {"class": own, "polygons": [[number for point in points for number in point]]}
    elif kind == "rectangle":
        (left, top), (right, bottom) = points
        yield {"class": own, "polygons": [[left, top, right, top, right, bottom, left, bottom]]}
    elif kind == "circle":
        (x, y), (at, to) = points
        radius = math.hypot(at - x, to - y)
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        yield {
            "class": own,
            "polygons": [
                [n for turn in turns for n in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
            ],
        }
    elif kind == "mask":
        yield {"class": own, "rle": _of_picture(shape, size)}
    else:
        aside[kind] += 1


def _of_picture(shape: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the runs of a shape that is a picture in text, at the corners that its points tell."""
    with Image.open(BytesIO(base64.b64decode(shape["mask"]))) as image:
        small = np.asarray(ImageOps.exif_transpose(image).convert("L")) != 0
    left, top = (round(number) for number in shape["points"][0])
    there = np.zeros(size, bool)
    there[top : top + small.shape[0], left : left + small.shape[1]] = small
    return mask_files.to_runs(there)


def _layout(tree: Tree, found: Sequence[_Painted], why: str, notes: Sequence[str]) -> Layout:
    """Return the layout: the background first, then the classes in natural order."""
    named = sorted(
        {one["class"] for own in found for one in own.objects if one["class"] is not None}, key=natural
    )
    grounds = [name for name in named if name.strip("_").lower() in GROUNDS][:1] or [BACKGROUND]
    names = (*grounds, *(name for name in named if name not in grounds))
    entries = [_entry(tree, one) for one in found]
    objects = count(sum(len(one.objects) for one in found), "outline")
    truth = Truth("mask", names)
    line = f"What no outline covers is {names[0]}."
    found_ = (*entries, *tree.refused)
    return Layout(
        "masks",
        tree.root,
        f"{why}: {objects} on {count(len(entries), 'picture')}.",
        found_,
        (line, *notes),
        truth,
    )


def _entry(tree: Tree, one: _Painted) -> Entry:
    return tree.entry(one.name, dump_target({"size": list(one.size), "objects": one.objects}), one.split)
