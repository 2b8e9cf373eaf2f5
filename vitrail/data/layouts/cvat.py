"""Read "CVAT for images": boxes, polygons and masks of every image, corners in pixels from 0."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.instances import runs_at
from vitrail.data.labels import count, shorten, split_of
from vitrail.data.layouts.annotations import few
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage

_SHAPES = ("box", "polygon", "mask")
_OTHERS = ("polyline", "points", "ellipse", "cuboid", "skeleton")


def xml_files(tree: Tree) -> list[str]:
    """Return the files with images and their boxes."""
    return [name for name in few(tree, ".xml") if _is_cvat(tree.read(name))]


def _is_cvat(data: bytes) -> bool:
    return b"<image" in data and any(f"<{shape} ".encode() in data for shape in _SHAPES)


def read(tree: Tree) -> Drawn:
    """Return the listed images, those without a shape as background.

    Raises:
        DataError: an XML file is broken.
    """
    find = Finder({name: name for name in tree.pictures}, tree.root)
    found: list[OutlinedImage] = []
    names: dict[str, None] = {}
    gone: list[str] = []
    others: Counter[str] = Counter()
    for file in xml_files(tree):
        try:
            root = ElementTree.fromstring(tree.read(file))
        except ElementTree.ParseError as error:
            raise DataError(
                f"{file} in {tree.name} is broken ({error}). Export the annotations again."
            ) from error
        names.update((one.findtext("name", "").strip(), None) for one in root.iterfind(".//labels/label"))
        for image in root.iter("image"):
            one = _image(image, file, find, tree)
            found += [one] if one else []
            gone += [] if one else [image.attrib["name"]]
            others.update(shape.tag for shape in image if shape.tag in _OTHERS)
    notes = [f"{count(len(gone), 'image')} of CVAT not here: {shorten(gone)}."] if gone else []
    notes += [f"{count(number, kind, kind)} of CVAT left aside: no boxes." for kind, number in others.items()]
    return Drawn(found, tuple(notes), tuple(name for name in names if name))


def _image(image: ElementTree.Element, file: str, find: Finder, tree: Tree) -> OutlinedImage | None:
    said, split = image.attrib["name"], split_of(image.attrib.get("subset", "")) or ""
    size = int(image.attrib.get("height", 0)), int(image.attrib.get("width", 0))
    picture, trouble = find(said, folder_of(file), split)
    if not trouble and picture in tree.files:
        boxes = [_box(one, size) for one in image if one.tag in _SHAPES]
        return OutlinedImage(picture, split, boxes, "", size if all(size) else (0, 0))
    if len(several := find.called(said, split)) > 1:
        trouble = f"is listed in {file} and may be {shorten(several)}: write its folder there, too"
        return OutlinedImage(said, split, [], trouble)
    return None


def _box(shape: ElementTree.Element, size: tuple[int, int]) -> Box:
    stated = shape.attrib
    if shape.tag == "mask":
        return _mask(stated, size)
    if shape.tag == "box":
        corners = tuple(float(stated[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        return Box(stated["label"], _around(corners, float(stated.get("rotation", 0))), {})
    points = [float(number) for pair in stated["points"].split(";") for number in pair.split(",")]
    xs, ys = points[::2], points[1::2]
    return Box(
        stated["label"], (min(xs), min(ys), max(xs), max(ys)), {"polygons": [[round(n, 3) for n in points]]}
    )


def _mask(stated: Mapping[str, str], size: tuple[int, int]) -> Box:
    """Return a mask: run lengths row by row inside its box, outside and inside the object in turn."""
    left, top, wide, tall = (int(float(stated[side])) for side in ("left", "top", "width", "height"))
    runs = [int(number) for number in stated["rle"].split(",")]
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    fits = 0 <= left <= left + wide <= size[1] and 0 <= top <= top + tall <= size[0]
    if len(flat) != wide * tall or not fits:
        raise ValueError(f"a mask of {len(flat)} pixels in a box of {wide} x {tall} at {left}, {top}")
    rle = runs_at(flat.reshape(tall, wide), (top, left), size).to_dict()
    return Box(stated["label"], (left, top, left + wide, top + tall), {"rle": rle})


def _around(corners: tuple[float, ...], degrees: float) -> tuple[float, float, float, float]:
    """Return the upright box around a box that is rotated about its centre."""
    left, top, right, bottom = corners
    if not degrees % 180:
        return left, top, right, bottom
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    wide, tall = right - left, bottom - top
    x, y, across, down = (
        (left + right) / 2,
        (top + bottom) / 2,
        wide * cos + tall * sin,
        wide * sin + tall * cos,
    )
    return x - across / 2, y - down / 2, x + across / 2, y + down / 2
