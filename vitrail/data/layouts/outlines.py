"""Outlines as masks: polygons and run lengths of COCO, YOLO and CVAT, and LabelMe's files, one per image."""

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
from vitrail.data.image_finder import Finder
from vitrail.data.labels import count, label, natural, shorten
from vitrail.data.layouts import boxes as box_files
from vitrail.data.layouts import mask_files, outline_objects
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.mask_tables import BACKGROUND, GROUNDS, Kind
from vitrail.data.manifest import dump_target
from vitrail.data.truth import Truth

Object = dict[str, Any]

_CORNERS = 64
"""Number of corners of a circle as an outline."""


class _Painted(NamedTuple):
    """An image by its name in the tree, its (height, width), and its painted objects, in order.

    `trouble` is the reason, as a predicate, why it cannot be used.
    """

    name: str
    size: tuple[int, int]
    objects: list[Object]
    split: str = ""
    trouble: str = ""


def look(tree: Tree, *, boxes: bool) -> Layout | None:
    """Return images with their painted objects: those of LabelMe and, if requested, outlines beside boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    return _labelme(tree) or (_of_boxes(tree) if boxes else None)


def _of_boxes(tree: Tree) -> Layout | None:
    kind = box_files.kind_of(tree)
    if kind is None:
        return None
    name, because, drawn = kind
    found, bare = [], 0
    for one in drawn.pictures:
        outlined = [box for box in one.boxes if {"polygons", "rle"} & box.more.keys()]
        bare += len(one.boxes) - len(outlined)
        objects = [_object(None if box.more.get("crowd") else label(box.label), box.more) for box in outlined]
        ordered = [objects[i] for i in sorted(range(len(objects)), key=lambda i: -_area(outlined[i].corners))]
        found.append(_Painted(one.name, one.size, ordered, one.split, one.trouble))
    if not any(one.objects for one in found):
        return None
    notes = [*drawn.notes]
    notes += [f"{count(bare, 'box', 'boxes')} without an outline left aside."] if bare else []
    sized = [one if any(one.size) else one._replace(size=_size(tree, one.name)) for one in found]
    known = {one.name for one in found}
    unlisted = [one for one in tree.pictures if one not in known]
    if unlisted:
        notes.append(f"{count(len(unlisted), 'image')} without annotations left aside: {shorten(unlisted)}.")
    notes.append("Where outlines overlap, the smaller one lies on top; crowds count nowhere.")
    return _layout(tree, sized, f"{name} outlines, because {because}", notes)


def _object(kind: str | None, more: Mapping[str, Any]) -> Object:
    return {"class": kind, **{key: more[key] for key in ("polygons", "rle") if key in more}}


def _area(corners: Sequence[float]) -> float:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def _size(tree: Tree, name: str) -> tuple[int, int]:
    """Return the (height, width) of an upright image; (0, 0) if it cannot be read, which its check reports."""
    try:
        with Image.open(BytesIO(tree.read(name))) as image:
            lying = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
            return image.size if lying else (image.height, image.width)
    except (OSError, DataError, SyntaxError, ValueError, KeyError):  # in trouble it may be no file
        return 0, 0


def _labelme(tree: Tree) -> Layout | None:
    """Read LabelMe's files: one per image, with shapes that have a label and points."""
    names = [name for name in tree.files if name.lower().endswith(".json")]
    if not names or (not _is_labelme(tree.read(names[0])) and not _is_labelme(tree.read(names[-1]))):
        return None
    made = _LabelMe(tree)
    for name in names:
        made.add(name)
    if not any(not one.trouble for one in made.found):
        return None
    made.add_left()
    right = sum(bool(not one.trouble and any(one.size)) for one in made.found)
    because = (
        f"LabelMe outlines, because {count(right, 'JSON file')} such as {made.first} hold shapes with labels"
    )
    return _layout(tree, made.found, because, made.notes())


class _LabelMe:
    """Reads LabelMe's files one by one; every file or image that is not used is reported."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.find = Finder({name: name for name in tree.pictures}, tree.root)
        self.found: list[_Painted] = []
        self.first = ""
        self.aside: Counter[str] = Counter()
        self.lonely: list[str] = []
        self.others: list[str] = []
        self.bad: dict[str, tuple[str, str]] = {}

    def add(self, name: str) -> None:
        """Read one JSON file."""
        data = self.tree.read(name)
        parsed, broken = _parsed(data)
        content = _content(parsed, name) if _is_labelme(data) and not broken else {}
        picture = self._picture(name, str(content.get("imagePath") or ""))
        if content and picture:
            self.first = self.first or name
            self.found.append(_painted(content, picture, name, self.aside))
        elif content:
            self.lonely.append(name)
        elif picture:
            what = (
                f"a broken JSON file, {name} ({broken})" if broken else f"a JSON file not of LabelMe, {name}"
            )
            self.bad[picture] = name, f"has {what}: export it again"
        else:
            self.others.append(name)

    def _picture(self, name: str, said: str) -> str:
        """Return the image named in a JSON file, or else the one with the same name; "" without one."""
        folder, _, file = name.rpartition("/")
        for wanted in (said, file.rpartition(".")[0]):
            picture, trouble = self.find(wanted, f"{folder}/" if folder else "")
            if wanted and not trouble:
                return picture
        return ""

    def add_left(self) -> None:
        """Add the images without a readable JSON file in the same folders: they have no mask."""
        known = {one.name for one in self.found}
        folders = {name.rpartition("/")[0] for name in known}
        for picture in self.tree.pictures:
            file, trouble = self.bad.pop(picture, ("", "has no JSON file of LabelMe beside it"))
            if picture not in known and (file or picture.rpartition("/")[0] in folders):
                self.found.append(_Painted(picture, (0, 0), [], trouble=trouble))
            elif file:
                self.others.append(file)

    def notes(self) -> list[str]:
        """Return notes on what is not used."""
        notes = [f"{count(number, kind)} left aside: no area." for kind, number in self.aside.items()]
        if self.lonely:
            notes.append(
                f"{count(len(self.lonely), 'file')} whose image is not here: {shorten(self.lonely)}."
            )
        if self.others:
            number = count(len(self.others), "JSON file")
            notes.append(f"{number} broken or none of LabelMe left aside: {shorten(self.others)}.")
        return notes


def _parsed(data: bytes) -> tuple[Any, str]:
    """Return the content of a JSON file, and the reason if it cannot be read."""
    try:
        return json.loads(data), ""
    except ValueError as error:
        return None, str(error)


def _is_labelme(data: bytes) -> bool:
    return b'"shapes"' in data and b'"imagePath"' in data


def _content(parsed: Any, name: str) -> Mapping[str, Any]:
    if isinstance(parsed, dict) and isinstance(parsed.get("shapes"), list):
        return parsed
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
    own = {"class": None if Kind(named).is_void else named}
    if (group := shape.get("group_id")) is not None:
        own["group"] = group
    if kind == "polygon" and len(points) >= 3:
        yield {**own, "polygons": [[number for point in points for number in point]]}
    elif kind == "rectangle":
        (left, top), (right, bottom) = points
        yield {**own, "polygons": [[left, top, right, top, right, bottom, left, bottom]]}
    elif kind == "circle":
        (x, y), (at, to) = points
        radius = math.hypot(at - x, to - y)
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        yield {
            **own,
            "polygons": [
                [n for turn in turns for n in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
            ],
        }
    elif kind == "mask":
        yield {**own, "rle": _of_image(shape, size)}
    else:
        aside[kind] += 1


def _of_image(shape: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the run lengths of a shape stored as an encoded image, at the corners given by its points."""
    with Image.open(BytesIO(base64.b64decode(shape["mask"]))) as image:
        small = np.asarray(ImageOps.exif_transpose(image).convert("L")) != 0
    left, top = (round(number) for number in shape["points"][0])
    there = np.zeros(size, bool)
    there[top : top + small.shape[0], left : left + small.shape[1]] = small
    return mask_files.to_runs(there)


def _layout(tree: Tree, found: Sequence[_Painted], why: str, notes: Sequence[str]) -> Layout:
    """Return the layout: the background first, then the classes in natural order."""
    found, outside = _inside(found)
    if tree.wanted == "instances":
        return _of_objects(tree, found, why, [*notes, *outside])
    named = sorted(
        {one["class"] for own in found for one in own.objects if one["class"] is not None}, key=natural
    )
    grounds = [name for name in named if name.strip("_").lower() in GROUNDS][:1] or [BACKGROUND]
    names = (*grounds, *(name for name in named if name not in grounds))
    notes = [f"What no outline covers is {names[0]}.", *notes, *_bare(found), *outside]
    entries = [_entry(tree, one) for one in found]
    objects = count(sum(len(one.objects) for one in found), "outline")
    right = count(sum(not one.trouble for one in found), "picture")
    every = (*entries, *tree.refused)
    return Layout(
        "masks", tree.root, f"{why}: {objects} on {right}.", every, tuple(notes), Truth("mask", names)
    )


def _of_objects(tree: Tree, found: Sequence[_Painted], why: str, notes: Sequence[str]) -> Layout:
    """Return the layout of outlines as objects; those of one group are one object."""
    made = {one.name: list(outline_objects.joined(one.objects, one.size)) for one in found if not one.trouble}
    named = sorted({own["class"] for objects in made.values() for own in objects}, key=natural)
    void = sum(not outline_objects.is_thing(own) for one in found for own in one.objects)
    notes = [*notes, *([f"{count(void, 'outline')} called void or background left aside."] if void else [])]
    entries = [
        _entry(tree, one)._replace(target=dump_target(made[one.name]) if one.name in made else "")
        for one in found
    ]
    objects = count(sum(map(len, made.values())), "object")
    why = f"{why}: {objects} on {count(len(made), 'picture')}."
    every = (*entries, *tree.refused)
    return Layout("masks", tree.root, why, every, tuple(notes), Truth("instances", tuple(named)))


def _entry(tree: Tree, one: _Painted) -> Entry:
    if one.name not in tree.files:
        return Entry(one.name, one.name, "", one.split, trouble=one.trouble)
    objects = [{key: value for key, value in own.items() if key != "group"} for own in one.objects]
    target = "" if one.trouble else dump_target({"size": list(one.size), "objects": objects})
    return tree.entry(one.name, target, one.split)._replace(trouble=one.trouble)


def _bare(found: Sequence[_Painted]) -> list[str]:
    """Return a note on images that contain only background."""
    bare = [one.name for one in found if not one.objects and not one.trouble]
    are = "is" if len(bare) == 1 else "are"
    return (
        [f"{count(len(bare), 'image')} without an outline {are} background: {shorten(bare)}."] if bare else []
    )


def _inside(found: Sequence[_Painted]) -> tuple[list[_Painted], list[str]]:
    """Remove outlines that are completely outside their images, with a note."""
    kept = [one._replace(objects=[own for own in one.objects if _touches(own, one.size)]) for one in found]
    lost = {
        one.name: len(one.objects) - len(own.objects)
        for one, own in zip(found, kept, strict=True)
        if len(one.objects) > len(own.objects)
    }
    if not lost:
        return kept, []
    line = f"{count(sum(lost.values()), 'outline')} wholly outside the image left aside: {shorten(lost)}."
    return kept, [line]


def _touches(one: Object, size: tuple[int, int]) -> bool:
    """Return whether an outline may cover a pixel of its image; True if this is unknown."""
    if not any(size) or "rle" in one:
        return True
    try:
        return any(
            min(xs) < size[1] and max(xs) > 0 < max(ys) and min(ys) < size[0]
            for xs, ys in ((outline[::2], outline[1::2]) for outline in one["polygons"])
        )
    except (TypeError, ValueError):  # not a list of numbers: the check of its row reports it
        return True
