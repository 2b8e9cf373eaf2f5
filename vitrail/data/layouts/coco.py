"""Read COCO's files of images, annotations and categories: the image file of each entry, and its objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.image_finder import Finder, folder_of, plain_path
from vitrail.data.labels import count, natural, shorten, split_of
from vitrail.data.layouts.annotations import few, is_coco_classes
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.mask_files import paint
from vitrail.data.layouts.outline_checks import broken_outline
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage
from vitrail.data.layouts.panoptic import is_panoptic


def content_of(tree: Tree, name: str) -> dict[str, Any] | None:
    """Return the content of a JSON file of COCO with boxes or outlines; None for other files.

    Raises:
        DataError: it is broken.
    """
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
    wanted = wanted and not is_coco_classes(content) and not is_panoptic(content)
    return content if wanted else None


def read(tree: Tree) -> Drawn:
    """Return the content of all COCO files."""
    find = Finder({name: name for name in tree.pictures}, tree.root)
    pictures: list[OutlinedImage] = []
    notes: list[str] = []
    names: dict[str, None] = {}
    listed, files = 0, list[str]()
    for name in few(tree, ".json"):
        content = content_of(tree, name)
        if content is not None:
            own = _File(find, name, content, outlined=tree.wanted in {"instances", "mask"})
            pictures += own.pictures()
            names.update(dict.fromkeys(own.names()))
            notes += own.notes
            listed += len(content["images"])
            files.append(name)
    if not listed:
        raise DataError(
            f"{shorten(files)} in {tree.name} {'list' if len(files) > 1 else 'lists'} no images. Export the "
            "annotations again, with their images."
        )
    return Drawn(pictures, tuple(notes), tuple(names))


class _File:
    """One COCO file; `notes` are complete after `pictures` was called. `outlined`: broken outlines are trouble."""

    def __init__(self, find: Finder, name: str, content: Mapping[str, Any], *, outlined: bool) -> None:
        self.name, self.content, self.outlined = name, content, outlined
        words = name.replace("_", "/").replace(".", "/").split("/")
        self.split = next((split for word in words if (split := split_of(word))), "")
        self.notes: list[str] = []
        self.images = self._images(find)

    def _images(self, find: Finder) -> dict[Any, OutlinedImage]:
        """Return the image file of each entry by its id, with `trouble` if it is ambiguous."""
        found: dict[Any, OutlinedImage] = {}
        written: dict[str, dict[str, None]] = {}
        meant = [self._meant(find, str(one["file_name"])) for one in self.content["images"]]
        for path, said, _ in meant:
            written.setdefault(path, {})[said] = None
        gone = []
        for one, (path, said, trouble) in zip(self.content["images"], meant, strict=True):
            others = written[path]
            right = [name for name in others if f"/{path}".endswith(f"/{plain_path(name)}")]
            if not path or (len(others) > 1 and len(right) == 1 and said not in right):
                gone.append(said)
                continue
            if len(others) > 1 and len(right) != 1:
                trouble = f"is the only file for {' and '.join(others)} of {self.name}: put all of them there"
            found[one["id"]] = OutlinedImage(path, self.split, [], trouble, _size(one))
        self._said_gone(gone)
        return found

    def _meant(self, find: Finder, said: str) -> tuple[str, str, str]:
        """Return the image that matches a name, or ""; the name; and the trouble if several match."""
        path, trouble = find(said, folder_of(self.name), self.split)
        if not trouble and path in find.files:
            return path, said, ""
        several = find.called(said, self.split)
        if len(several) < 2:
            return "", said, ""
        return (
            said,
            said,
            f"is listed in {self.name} and may be {shorten(several)}: write its folder there, too",
        )

    def _said_gone(self, gone: list[str]) -> None:
        every = len(self.content["images"])
        if gone and len(gone) == every:
            self.notes.append(f"{self.name} left aside: none of its {count(every, 'image')} is here.")
        elif gone:
            self.notes.append(f"{count(len(gone), 'image')} of {self.name} not here: {shorten(gone)}.")

    def names(self) -> list[str]:
        """Return the categories by their ids, those without boxes, too.

        A category without boxes that is only the supercategory of the others is no class: Roboflow adds one.
        """
        used = {one["category_id"] for one in self.content["annotations"]}
        above = {one.get("supercategory") for one in self.content["categories"]}
        ordered = sorted(self.content["categories"], key=lambda one: natural(str(one["id"])))
        groups = [
            str(one["name"])
            for one in ordered
            if one["id"] not in used
            and one["name"] in above
            and one.get("supercategory") in {None, "", "none"}
        ]
        if groups:
            self.notes.append(
                f"{shorten(groups)} of {self.name} is no class: a group of classes without boxes."
            )
        return [str(one["name"]) for one in ordered if str(one["name"]) not in groups]

    def pictures(self) -> list[OutlinedImage]:
        """Return the images with their objects; a broken annotation sets `trouble`."""
        names = {one["id"]: str(one["name"]) for one in self.content["categories"]}
        listed = {one["id"] for one in self.content["images"]}
        lost: Counter[str] = Counter()
        for one in self.content["annotations"]:
            number, kind = one["image_id"], one["category_id"]
            picture = self.images.get(number)
            if picture is None:
                lost.update([] if number in listed else [str(number)])
            elif trouble := self._trouble(one, names):
                self.images[number] = picture._replace(trouble=picture.trouble or trouble)
            else:
                picture.boxes.append(Box(names[kind], _corners(one), _more(one)))
        if lost:
            shown = shorten(f"image_id {number}" for number in lost)
            self.notes.append(
                f"{count(lost.total(), 'annotation')} of images that {self.name} does not list left aside: {shown}."
            )
        return list(self.images.values())

    def _trouble(self, one: Mapping[str, Any], names: Mapping[Any, str]) -> str:
        """Return what is wrong with an annotation, as a predicate of its image."""
        said = f"annotation {one['id']}" if "id" in one else "an annotation"
        if one["category_id"] not in names:
            return f"has {said} of the category {one['category_id']}, which {self.name} does not name: add it there"
        why = broken_outline(one.get("segmentation")) if self.outlined else ""
        return f"has {said} in {self.name} whose segmentation is {why}; export or correct it" if why else ""


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    right = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return (int(height or 0), int(width or 0)) if right else (0, 0)


def _corners(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the corners of a box; without a box, of the outline around it."""
    if annotation.get("bbox"):
        x, y, width, height = annotation["bbox"]
        return x, y, x + width, y + height
    outline = annotation["segmentation"]
    if isinstance(outline, list):
        xs = [x for polygon in outline for x in polygon[::2]]
        ys = [y for polygon in outline for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    height, width = outline["size"]
    there = (
        paint([{"class": "", "rle": outline}], (height, width), {"": 1}, "An annotation without a box") > 0
    )
    rows, cols = (np.flatnonzero(there.any(axis)).tolist() or [0, -1] for axis in (1, 0))
    return cols[0], rows[0], cols[-1] + 1, rows[-1] + 1


def _more(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outline of an annotation, polygons or a run-length code, and whether it is a crowd."""
    outline = annotation.get("segmentation")
    shape = {"polygons": outline} if isinstance(outline, list) else {"rle": outline}
    return {**(shape if outline else {}), **({"crowd": True} if annotation.get("iscrowd") else {})}
