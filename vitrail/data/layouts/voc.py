"""Read Pascal VOC: one XML file per image, and the splits that ImageSets lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree import ElementTree

from vitrail.core.errors import DataError
from vitrail.data.labels import count, shorten, split_of
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage

_SOME = 200
"""XML files that are searched for a box: those of background have none."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def xml_files(tree: Tree) -> list[str]:
    """Return the XML files of a source with boxes in Pascal VOC's form; empty for another form."""
    names = [name for name in tree.files if name.lower().endswith(".xml")]
    return names if any(b"<bndbox>" in tree.read(name) for name in names[:_SOME]) else []


def read(tree: Tree) -> Drawn:
    """Return the images with an XML file, those without an object as background, and notes on the others.

    Raises:
        DataError: an XML file is broken.
    """
    by_stem: dict[str, list[str]] = {}
    for name in tree.pictures:
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    splits = listed_splits(tree)
    found: list[OutlinedImage] = []
    lonely: list[str] = []
    for name in xml_files(tree):
        root = _parsed(tree, name)
        if root.tag != "annotation":
            continue
        stem = PurePosixPath(name).stem
        picture = _nearest(name, by_stem.get(stem) or by_stem.get(_named_stem(root), []))
        if not picture:
            lonely.append(name)
            continue
        split = splits.get(stem) or next((s for part in name.split("/")[:-1] if (s := split_of(part))), "")
        found.append(OutlinedImage(picture, split, list(_boxes(root)), "", _size(root)))
    notes = (
        [f"{count(len(lonely), 'XML file')} without an image left aside: {shorten(lonely)}."]
        if lonely
        else []
    )
    return Drawn(found, tuple(notes))


def _parsed(tree: Tree, name: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(tree.read(name))
    except ElementTree.ParseError as error:
        raise DataError(
            f"{name} in {tree.name} is broken ({error}). Export the annotations again."
        ) from error


def _named_stem(root: ElementTree.Element) -> str:
    return PurePosixPath(root.findtext("filename", "").strip().replace("\\", "/")).stem


def _nearest(name: str, pictures: list[str]) -> str:
    """Return the image whose folders agree most with those of an XML file; "" without one."""
    own = name.split("/")[:-1]

    def common(picture: str) -> int:
        return sum(part in own for part in picture.split("/")[:-1])

    return max(pictures, key=common, default="")


def _boxes(root: ElementTree.Element) -> Iterator[Box]:
    for one in root.iter("object"):
        stated = [one.findtext(f"bndbox/{side}") for side in _SIDES]
        if None in stated:
            raise ValueError(f"an object {one.findtext('name', '')!r} without xmin, ymin, xmax and ymax")
        left, top, right, bottom = (float(side or "nan") for side in stated)
        flat = right <= left or bottom <= top
        # VOC counts pixels from 1 and includes the last; a box without a length remains one
        corners = (left, top, right, bottom) if flat else (left - 1, top - 1, right, bottom)
        flags = {key: True for key in ("difficult", "truncated") if one.findtext(key, "0").strip() == "1"}
        yield Box(one.findtext("name", ""), corners, flags)


def _size(root: ElementTree.Element) -> tuple[int, int]:
    stated = [root.findtext(f"size/{side}", "0").strip() for side in ("height", "width")]
    if not all(side.isdigit() and int(side) for side in stated):
        return 0, 0
    return int(stated[0]), int(stated[1])


def listed_splits(tree: Tree) -> dict[str, str]:
    """Return the splits that Pascal VOC lists in ImageSets, by the stem of the image."""
    splits: dict[str, str] = {}
    for name in tree.files:
        split = split_of(PurePosixPath(name).stem)
        if name.endswith(".txt") and "ImageSets" in name and split:
            splits.update(
                (line.split()[0], split) for line in tree.read(name).decode().splitlines() if line.strip()
            )
    return splits
