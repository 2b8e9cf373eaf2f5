"""COCO, YOLO and Pascal VOC: recognised and named; as classification the boxes are cut out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import yaml

from vitrail.core.errors import DataError
from vitrail.data.decode import decode
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.names import count, is_picture, label, split_of


class _Box(NamedTuple):
    """One box on one picture, in pixels; the numbers may lie outside."""

    picture: str  # name in the tree
    label: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom
    split: str


_ROUNDING = 1e-3  # of a pixel: shares of a side written with six digits are not exact

_Reader = Callable[[Tree], Iterator[_Box]]


def look(tree: Tree) -> Layout | None:
    """Name what holds boxes or masks, and say the way out; None for anything else.

    Raises:
        DataError: the source is for detection or segmentation.
    """
    kind = _kind(tree)
    if kind is not None:
        raise DataError(
            f"{tree.name} holds boxes ({kind[0]}, because {kind[1]}): detection comes later. "
            "As classification I can take the crops: --layout crops."
        )
    if pair := _masks(tree):
        raise DataError(
            f"{tree.name} holds pictures with masks (in {pair}): segmentation comes later. "
            "For classification give one folder a class."
        )
    return None


def crops(tree: Tree) -> Layout | None:
    """Take every box as a picture; the boxes of one picture stay together. None where there are no boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    kind = _kind(tree)
    if kind is None:
        return None
    name, because, reader = kind
    entries: dict[str, Entry] = {}
    for box in _whole(tree, reader):
        left, top = (math.floor(max(0, corner) + _ROUNDING) for corner in box.corners[:2])
        right, bottom = (math.ceil(corner - _ROUNDING) for corner in box.corners[2:])
        path = f"{tree.files[box.picture]}!{left},{top},{max(left, right)},{max(top, bottom)}"
        thin = "is a box of fewer than two pixels" if min(right - left, bottom - top) < 2 else ""
        entries[path] = Entry(path, path, label(box.label), box.split, tree.files[box.picture], thin)
    boxes = count(len(entries), "box", "boxes")
    why = f"the crops of {name} boxes, because {because}: {boxes}, one picture each."
    return Layout("crops", tree.root, why, (*entries.values(), *tree.refused), tree.notes)


def _whole(tree: Tree, reader: _Reader) -> Iterator[_Box]:
    """Yield the boxes; an annotation that lacks a part is told in one sentence."""
    try:
        yield from reader(tree)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"An annotation in {tree.name} lacks a part or has a wrong one ({type(error).__name__}: {error}). "
            "Export the annotations again."
        ) from error


def _kind(tree: Tree) -> tuple[str, str, _Reader] | None:
    if coco := [name for name in _few(tree, ".json") if _coco_json(tree, name) is not None]:
        return "COCO", f"{coco[0]} lists images, annotations and categories", _coco
    xml = [name for name in tree.files if name.endswith(".xml")]
    if xml and b"<bndbox>" in tree.read(xml[0]):
        return "Pascal VOC", f"{count(len(xml), 'XML file')} such as {xml[0]} hold them", _voc
    if names := _yolo_names(tree):
        return "YOLO", f"{names[0]} names the classes of the text files in labels/", _yolo
    return None


def _few(tree: Tree, suffix: str) -> list[str]:
    """Return the files of a kind that could be one for the whole set; none where there is one a picture."""
    names = [name for name in tree.files if name.endswith(suffix)]
    return names if len(names) < 100 else []


def _masks(tree: Tree) -> str:
    folders = {PurePosixPath(name).parent for name in tree.pictures}
    for folder in folders:
        for masks in ("masks", "mask", "annotations", "SegmentationClass"):
            if folder.name in {"images", "image", "JPEGImages"} and folder.with_name(masks) in folders:
                return f"{folder} and {folder.with_name(masks)}"
    return ""


def _coco_json(tree: Tree, name: str) -> dict[str, Any] | None:
    data = tree.read(name)
    if b'"annotations"' not in data or b'"categories"' not in data:
        return None
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(
            f"{name} in {tree.name} is broken ({error}). Export the annotations again."
        ) from error
    wanted = isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()
    return content if wanted else None


def _coco(tree: Tree) -> Iterator[_Box]:
    by_file = {PurePosixPath(name).name: name for name in tree.pictures}
    for name in _few(tree, ".json"):
        content = _coco_json(tree, name)
        if content is None:
            continue
        split = next(
            (s for word in name.replace("_", "/").replace(".", "/").split("/") if (s := split_of(word))), ""
        )
        names = {one["id"]: str(one["name"]) for one in content["categories"]}
        pictures = {one["id"]: by_file.get(PurePosixPath(one["file_name"]).name) for one in content["images"]}
        for one in content["annotations"]:
            picture = pictures.get(one["image_id"])
            if picture is not None and not one.get("iscrowd"):
                x, y, width, height = one["bbox"]
                yield _Box(picture, names[one["category_id"]], (x, y, x + width, y + height), split)


def _voc(tree: Tree) -> Iterator[_Box]:
    stems = {PurePosixPath(name).stem: name for name in tree.pictures}
    splits: dict[str, str] = {}
    for name in tree.files:
        split = split_of(PurePosixPath(name).stem)
        if name.endswith(".txt") and "ImageSets" in name and split:
            splits.update(
                (line.split()[0], split) for line in tree.read(name).decode().splitlines() if line.strip()
            )
    for name in tree.files:
        stem = PurePosixPath(name).stem
        if not name.endswith(".xml") or stem not in stems:
            continue
        try:
            root = ElementTree.fromstring(tree.read(name))
        except ElementTree.ParseError as error:
            raise DataError(
                f"{name} in {tree.name} is broken ({error}). Export the annotations again."
            ) from error
        for one in root.iter("object"):
            left, top, right, bottom = (
                float(one.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            corners = (left - 1, top - 1, right, bottom)  # VOC counts pixels from 1 and includes the last
            yield _Box(stems[stem], one.findtext("name", ""), corners, splits.get(stem, ""))


def _yolo_names(tree: Tree) -> tuple[str, list[str]] | None:
    for name in (*_few(tree, ".yaml"), *_few(tree, ".yml")):
        try:
            content = yaml.safe_load(tree.read(name))
        except yaml.YAMLError:
            continue
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names)]
        if isinstance(names, list) and any("labels/" in file for file in tree.files):
            return name, [str(one) for one in names]
    return None


def _yolo(tree: Tree) -> Iterator[_Box]:
    found = _yolo_names(tree)
    assert found is not None
    for name in tree.files:
        beside = "/".join("labels" if part == "images" else part for part in name.split("/"))
        text = beside.rsplit(".", 1)[0] + ".txt"
        if not is_picture(name) or text not in tree.files:
            continue
        split = next((s for part in name.split("/") if (s := split_of(part))), "")
        height, width = decode(tree.read(name), name=name).image.shape[:2]
        for line in tree.read(text).decode().splitlines():
            number, *numbers = line.split() or [""]
            if len(numbers) == 4:
                x, y, w, h = (float(one) for one in numbers)
                xs, ys = [x - w / 2, x + w / 2], [y - h / 2, y + h / 2]
            elif len(numbers) >= 6:  # a polygon: its box
                xs, ys = [float(one) for one in numbers[::2]], [float(one) for one in numbers[1::2]]
            else:
                continue
            corners = (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
            yield _Box(name, found[1][int(number)], corners, split)
