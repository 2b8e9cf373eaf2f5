"""COCO, YOLO and Pascal VOC: boxes of a picture as its truth; as classification the boxes are cut out."""

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
from vitrail.data.layouts.annotations import few, is_coco_classes
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.manifest import dump_target
from vitrail.data.names import count, is_picture, join_labels, label, natural, split_of
from vitrail.data.truth import Truth


class _Box(NamedTuple):
    """One box on one picture, in pixels; the numbers may lie outside. `more` holds outlines and flags."""

    label: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom
    more: dict[str, Any]


class _Picture(NamedTuple):
    """One picture by its name in the tree, and its boxes."""

    name: str
    split: str
    boxes: list[_Box]


_ROUNDING = 1e-3  # of a pixel: shares of a side written with six digits are not exact

_Reader = Callable[[Tree], Iterator[_Picture]]


def look(tree: Tree) -> Layout | None:
    """Take every picture with its boxes; None where there are no boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    kind = _kind(tree)
    if kind is None:
        return None
    name, because, reader = kind
    pictures: dict[str, _Picture] = {}
    for one in _whole(tree, reader):
        known = pictures.setdefault(one.name, _Picture(one.name, one.split, []))
        known.boxes.extend(one.boxes)
        pictures[one.name] = known._replace(split=known.split or one.split)
    entries = [tree.entry(one.name, _target(one.boxes), one.split) for one in pictures.values()]
    boxes = count(sum(len(one.boxes) for one in pictures.values()), "box", "boxes")
    names = sorted({label(box.label) for one in pictures.values() for box in one.boxes}, key=natural)
    refusal = (
        f"{tree.name} holds boxes ({name}, because {because}): detection comes later. "
        "A task of your own can learn them (--task my_module:MyTask). As classification I can take the crops: "
        "--layout crops."
    )
    if any({"polygons", "rle"} & box.more.keys() for one in pictures.values() for box in one.boxes):
        refusal += " Their outlines can be learnt as masks: --task segment."
    why = f"{name} boxes, because {because}: {boxes} on {count(len(entries), 'picture')}."
    truth = Truth("boxes", tuple(names))
    return Layout("boxes", tree.root, why, (*entries, *tree.refused), (), truth, refusal)


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
    for picture, box in ((one, box) for one in _whole(tree, reader) for box in one.boxes):
        if box.more.get("crowd"):
            continue
        left, top = (math.floor(max(0, corner) + _ROUNDING) for corner in box.corners[:2])
        right, bottom = (math.ceil(corner - _ROUNDING) for corner in box.corners[2:])
        file = tree.files[picture.name]
        path = f"{file}!{left},{top},{max(left, right)},{max(top, bottom)}"
        thin = "is a box of fewer than two pixels" if min(right - left, bottom - top) < 2 else ""
        entries[path] = Entry(path, path, join_labels([box.label]), picture.split, file, thin)
    boxes = count(len(entries), "box", "boxes")
    why = f"the crops of {name} boxes, because {because}: {boxes}, one picture each."
    return Layout("crops", tree.root, why, (*entries.values(), *tree.refused))


def kind_of(tree: Tree) -> tuple[str, str, Iterator[_Picture]] | None:
    """Return whose boxes these are, why, and the pictures with theirs; None where there are none."""
    kind = _kind(tree)
    return None if kind is None else (kind[0], kind[1], _whole(tree, kind[2]))


def _target(boxes: list[_Box]) -> str:
    """Write boxes as a row's target: a list of class, corners in pixels, and what else was said of each."""
    return dump_target(
        [{"class": label(box.label), "box": [_short(n) for n in box.corners], **box.more} for box in boxes]
    )


def _short(number: float) -> float | int:
    """Return a number of pixels to a thousandth, whole ones without a point."""
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _whole(tree: Tree, reader: _Reader) -> Iterator[_Picture]:
    """Yield the pictures; an annotation that lacks a part is told in one sentence."""
    try:
        yield from reader(tree)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"An annotation in {tree.name} lacks a part or has a wrong one ({type(error).__name__}: {error}). "
            "Export the annotations again."
        ) from error


def _kind(tree: Tree) -> tuple[str, str, _Reader] | None:
    if coco := [name for name in few(tree, ".json") if _coco_json(tree, name) is not None]:
        return "COCO", f"{coco[0]} lists images, annotations and categories", _coco
    if cvat := [name for name in few(tree, ".xml") if _is_cvat(tree.read(name))]:
        return "CVAT", f"{cvat[0]} holds images and their boxes", _cvat
    xml = [name for name in tree.files if name.endswith(".xml")]
    if xml and b"<bndbox>" in tree.read(xml[0]):
        return "Pascal VOC", f"{count(len(xml), 'XML file')} such as {xml[0]} hold them", _voc
    if names := _yolo_names(tree):
        return "YOLO", f"{names[0]} names the classes of the text files in labels/", _yolo
    return None


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
    wanted = wanted and not is_coco_classes(content)
    return content if wanted else None


def _coco(tree: Tree) -> Iterator[_Picture]:
    by_file = {PurePosixPath(name).name: name for name in tree.pictures}
    for name in few(tree, ".json"):
        content = _coco_json(tree, name)
        if content is None:
            continue
        split = next(
            (s for word in name.replace("_", "/").replace(".", "/").split("/") if (s := split_of(word))), ""
        )
        names = {one["id"]: str(one["name"]) for one in content["categories"]}
        pictures = {one["id"]: by_file.get(PurePosixPath(one["file_name"]).name) for one in content["images"]}
        boxes: dict[str, list[_Box]] = {name: [] for name in pictures.values() if name is not None}
        for one in content["annotations"]:
            picture = pictures.get(one["image_id"])
            if picture is not None:
                corners = _corners(one)
                boxes[picture].append(_Box(names[one["category_id"]], corners, _more(one)))
        yield from (_Picture(picture, split, own) for picture, own in boxes.items())


def _corners(annotation: dict[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = annotation["bbox"]
    return x, y, x + width, y + height


def _more(annotation: dict[str, Any]) -> dict[str, Any]:
    """Return the outline of a COCO annotation, polygons or a run-length code, and whether it is a crowd."""
    outline = annotation.get("segmentation")
    shape = {"polygons": outline} if isinstance(outline, list) else {"rle": outline}
    return {**(shape if outline else {}), **({"crowd": True} if annotation.get("iscrowd") else {})}


def _voc(tree: Tree) -> Iterator[_Picture]:
    stems = {PurePosixPath(name).stem: name for name in tree.pictures}
    splits = listed_splits(tree)
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
        boxes = []
        for one in root.iter("object"):
            left, top, right, bottom = (
                float(one.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            corners = (left - 1, top - 1, right, bottom)  # VOC counts pixels from 1 and includes the last
            flags = {key: True for key in ("difficult", "truncated") if one.findtext(key, "0").strip() == "1"}
            boxes.append(_Box(one.findtext("name", ""), corners, flags))
        yield _Picture(stems[stem], splits.get(stem, ""), boxes)


def _is_cvat(data: bytes) -> bool:
    return b"<image" in data and (b"<box" in data or b"<polygon" in data)


def _cvat(tree: Tree) -> Iterator[_Picture]:
    """Read "CVAT for images": boxes and polygons of every image, corners in pixels from 0."""
    by_name = {name: name for name in tree.pictures} | {
        PurePosixPath(name).name: name for name in tree.pictures
    }
    for file in (name for name in few(tree, ".xml") if _is_cvat(tree.read(name))):
        for image in ElementTree.fromstring(tree.read(file)).iter("image"):
            picture = by_name.get(image.attrib["name"]) or by_name.get(
                PurePosixPath(image.attrib["name"]).name
            )
            if picture is None:
                continue
            split = split_of(image.attrib.get("subset", "")) or ""
            yield _Picture(picture, split, [_cvat_box(one) for one in image if one.tag in {"box", "polygon"}])


def _cvat_box(shape: ElementTree.Element) -> _Box:
    known = shape.attrib
    if shape.tag == "box":
        left, top, right, bottom = (float(known[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        return _Box(known["label"], (left, top, right, bottom), {})
    points = [float(number) for pair in known["points"].split(";") for number in pair.split(",")]
    xs, ys = points[::2], points[1::2]
    corners = (min(xs), min(ys), max(xs), max(ys))
    return _Box(known["label"], corners, {"polygons": [[_short(number) for number in points]]})


def listed_splits(tree: Tree) -> dict[str, str]:
    """Return the splits that Pascal VOC lists in ImageSets, by the stem of the picture."""
    splits: dict[str, str] = {}
    for name in tree.files:
        split = split_of(PurePosixPath(name).stem)
        if name.endswith(".txt") and "ImageSets" in name and split:
            splits.update(
                (line.split()[0], split) for line in tree.read(name).decode().splitlines() if line.strip()
            )
    return splits


def _yolo_names(tree: Tree) -> tuple[str, list[str]] | None:
    for name in (*few(tree, ".yaml"), *few(tree, ".yml")):
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


def _yolo(tree: Tree) -> Iterator[_Picture]:
    found = _yolo_names(tree)
    assert found is not None
    for name in tree.files:
        beside = "/".join("labels" if part == "images" else part for part in name.split("/"))
        text = beside.rsplit(".", 1)[0] + ".txt"
        if not is_picture(name):
            continue
        split = next((s for part in name.split("/") if (s := split_of(part))), "")
        lines = tree.read(text).decode().splitlines() if text in tree.files else []
        size = decode(tree.read(name), name=name).image.shape[:2] if any(map(str.split, lines)) else (0, 0)
        yield _Picture(name, split, [box for line in lines if (box := _line(line, found[1], size))])


def _line(line: str, names: list[str], size: tuple[int, ...]) -> _Box | None:
    """Read one line of YOLO: a class and a box, or a polygon, in shares of (height, width)."""
    number, *numbers = line.split() or [""]
    height, width = size
    if len(numbers) == 4:
        x, y, w, h = (float(one) for one in numbers)
        xs, ys, outline = [x - w / 2, x + w / 2], [y - h / 2, y + h / 2], False
    elif len(numbers) >= 6:  # a polygon: its box
        xs, ys, outline = [float(one) for one in numbers[::2]], [float(one) for one in numbers[1::2]], True
    else:
        return None
    corners = (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    polygon = [_short(n) for x, y in zip(xs, ys, strict=False) for n in (x * width, y * height)]
    return _Box(names[int(number)], corners, {"polygons": [polygon]} if outline else {})
