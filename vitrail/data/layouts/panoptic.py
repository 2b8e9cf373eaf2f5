"""Read COCO's panoptic segmentation: a JSON of segments, and PNGs whose colours are the numbers of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.instances import runs_at
from vitrail.data.labels import count, label, natural, shorten, split_of
from vitrail.data.layouts.annotations import as_json, few
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.manifest import dump_target
from vitrail.data.truth import Truth


class _Segments(NamedTuple):
    """The segments of one image: its name, that of their PNG ("" if it is not here), and its split."""

    image: str
    png: str
    stated: Sequence[Mapping[str, Any]]
    split: str


class _File(NamedTuple):
    """One JSON file: its name, the names and the kinds of its categories by number, and the images that are here."""

    name: str
    names: dict[Any, str]
    things: list[str]
    images: list[_Segments]
    gone: list[str]


def is_panoptic(content: Any) -> bool:
    """Return whether the content of a JSON file is COCO's panoptic segmentation."""
    if not (isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()):
        return False
    first = content["annotations"][:1]
    return bool(first) and isinstance(first[0], dict) and "segments_info" in first[0]


def look(tree: Tree) -> Layout | None:
    """Return every image with its segments, areas and single objects; None if no JSON file lists any.

    Raises:
        DataError: a JSON file is broken.
    """
    if tree.table:
        return None
    contents = [
        (name, content)
        for name in few(tree, ".json")
        if b'"segments_info"' in tree.read(name) and is_panoptic(content := as_json(tree, name))
    ]
    if not contents:
        return None
    try:
        files = [_file(tree, name, content) for name, content in contents]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{contents[0][0]} in {tree.name} lacks a part or has a wrong one ({type(error).__name__}: {error}). "
            "Export the annotations again."
        ) from error
    return _layout(tree, files)


def _file(tree: Tree, name: str, content: Mapping[str, Any]) -> _File:
    """Return what a JSON file says, and where the files are that it names."""
    stem = PurePosixPath(name).stem
    folder = folder_of(name)
    pngs = {one for one in tree.files if _is_of(one, stem)}
    find = Finder({one: one for one in tree.pictures if one not in pngs}, tree.root)
    at = {one.rpartition("/")[2]: one for one in sorted(pngs, reverse=True)}
    split = next((found for word in stem.replace("-", "_").split("_") if (found := split_of(word))), "")
    segments = {one["image_id"]: one for one in content["annotations"]}
    images, gone = [], []
    for one in content["images"]:
        said, own = str(one["file_name"]), segments.get(one["id"])
        path, trouble = find(said, folder, split)
        if trouble or path not in tree.files or own is None:
            gone.append(said)
            continue
        file = str(own["file_name"])
        exact = next((png for png in (f"{folder}{stem}/{file}", f"{folder}{file}") if png in tree.files), "")
        images.append(_Segments(path, exact or at.get(file, ""), own["segments_info"], split))
    ordered = sorted(content["categories"], key=lambda one: natural(str(one["id"])))
    names = {one["id"]: label(str(one["name"])) for one in ordered}
    things = [label(str(one["name"])) for one in ordered if one.get("isthing", 1)]
    return _File(name, names, things, images, gone)


def _is_of(name: str, stem: str) -> bool:
    """Return whether a file is a PNG of segments: in a folder called like the JSON file, or panoptic."""
    folder = name.rpartition("/")[0].rpartition("/")[2]
    return name.lower().endswith(".png") and (folder == stem or folder.lower().startswith("panoptic"))


def _layout(tree: Tree, files: Sequence[_File]) -> Layout:
    jobs = {one.image: (file, one) for file in files for one in file.images}
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda job: _entry(tree, *job), jobs.values()))
    names = tuple(dict.fromkeys(name for file in files for name in file.names.values()))
    things = tuple(name for name in names if any(name in file.things for file in files))
    pngs = frozenset(one.png for _, one in jobs.values() if one.png)
    notes = [
        f"{count(len(one.gone), 'image')} of {one.name} not here: {shorten(one.gone)}."
        for one in files
        if one.gone
    ]
    left = [name for name in tree.pictures if name not in jobs and name not in pngs]
    if left:
        notes.append(f"{count(len(left), 'image')} without segments left aside: {shorten(left)}.")
    stuff = [name for name in names if name not in things]
    notes.append(
        f"Single objects are those of {shorten(things, 12) or 'no class'}; {shorten(stuff, 12) or 'none'} are areas. "
        "Others: --things car,pedestrian"
    )
    right = sum(not entry.trouble for entry in found)
    why = f"COCO panoptic segments, because {shorten([one.name for one in files])} lists them: {count(right, 'image')}."
    truth = Truth("panoptic", names, things=things)
    every = (*found, *tree.refused)
    return Layout("panoptic", tree.root, why, every, tuple(notes), truth, truths=pngs)


def _entry(tree: Tree, file: _File, one: _Segments) -> Entry:
    """Return the entry of an image with its segments as run lengths."""
    try:
        target, trouble = dump_target(_objects(tree, file, one)), ""
    except DataError as error:
        target, trouble = "", str(error).rstrip(".")
    return tree.entry(one.image, target, one.split)._replace(trouble=trouble)


def _objects(tree: Tree, file: _File, one: _Segments) -> list[dict[str, Any]]:
    from scipy.ndimage import find_objects  # slow to import

    if not one.png:
        raise DataError(
            f"has no PNG of its segments in a folder {PurePosixPath(file.name).stem}: put it there."
        )
    numbers = _numbers(tree, one.png)
    values, places = np.unique(numbers, return_inverse=True)
    inner = places.reshape(numbers.shape).astype(np.int32) + 1
    where = dict(zip(values.tolist(), enumerate(find_objects(inner), 1), strict=True))
    size = (numbers.shape[0], numbers.shape[1])
    stated = {int(own["id"]): own for own in one.stated}
    if strange := [value for value in where if value and value not in stated]:
        raise DataError(
            f"has segments in {one.png} that {file.name} does not list ({shorten(map(str, strange))}): add them."
        )
    found = []
    for value, own in stated.items():
        name = file.names.get(own["category_id"])
        if name is None:
            raise DataError(
                f"has a segment of the category {own['category_id']}, which {file.name} does not name."
            )
        if value in where:
            number, (down, across) = where[value]
            runs = runs_at(inner[down, across] == number, (down.start, across.start), size)
            box = [across.start, down.start, across.stop, down.stop]
            crowd = {"crowd": True} if own.get("iscrowd") else {}
            found.append({"class": name, "box": box, "rle": runs.to_dict(), **crowd})
    return found


def _numbers(tree: Tree, name: str) -> NDArray[np.int64]:
    """Return the number of the segment of each pixel: red + 256 green + 65,536 blue."""
    try:
        with Image.open(BytesIO(tree.read(name))) as image:
            colours = np.asarray(image.convert("RGB"), np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"has segments in {name} that cannot be read ({error}): save it as PNG.") from error
    numbers: NDArray[np.int64] = colours @ np.array([1, 256, 65_536])
    return numbers
