"""Objects from mask files: label maps, where each object has its number, and the connected pieces of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.instances import runs_at
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import mask_files
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.mask_header import Header
from vitrail.data.layouts.mask_tables import FOREGROUND, GROUNDS
from vitrail.data.manifest import dump_target
from vitrail.data.truth import Truth

OBJECT = "object"
"""The class of objects that nobody names."""

MOST = 65_535
"""The most objects of a label map."""

SPECK = 4
"""Connected pieces of a class with fewer pixels are noise of its border and no objects."""

_SMOOTHED = 2  # values besides 0 and 255

Array = NDArray[Any]
_Reader = Callable[[mask_files.RawMask, str], "Pieces"]


class Pieces(NamedTuple):
    """The objects of one mask, as those of a row, and the number of specks that are none."""

    objects: list[dict[str, Any]]
    specks: int = 0


class _Way(NamedTuple):
    """How mask files become objects: the classes, a sentence about it, and a reader of one mask."""

    names: tuple[str, ...]
    text: str
    reader: _Reader


class ObjectMasks(NamedTuple):
    """Image → its objects as a target, or the trouble with its mask; the header of all, and the kind of masks."""

    targets: dict[str, str]
    broken: dict[str, str]
    header: Header
    kind: str


def are_objects(tree: Tree, header: Header) -> bool:
    """Return whether masks of one file an image are read as objects: as asked, or because their numbers tell them."""
    return tree.wanted == "instances" or (header.objects and tree.wanted in {"", "boxes"})


def of_files(tree: Tree, header: Header, masks: Mapping[str, str]) -> ObjectMasks:
    """Return the objects of images with one mask file each; `header` is what its values would be as classes."""
    if header.objects or header.guessed or not header.truth.names:
        way, kind = _numbers(header), "the numbers are those of objects"
    elif _is_binary(header.truth):
        way, kind = _regions(header.truth), "the pieces of the foreground are objects"
    else:
        way, kind = _classes(header.truth), "the pieces of classes are objects"
    return _read(tree, {picture: {"": [mask]} for picture, mask in masks.items()}, lambda _: way, kind)


def of_many(tree: Tree, masks: Mapping[str, Mapping[str, Sequence[str]]], name: str = "") -> ObjectMasks:
    """Return the objects of images with several masks: one file a class, or (`name` is their class) one an object."""
    if name:
        way = _Way((name,), f"Each mask file is one object of the class {name}.", _whole(name))
        return _read(tree, masks, lambda _: way, "one file an object")
    names = tuple(dict.fromkeys(one for own in masks.values() for one in own))
    text = (
        f"Each connected piece of a file is one object of its class ({shorten(names, 8)}), or each number where a file "
        "holds several."
    )
    ways = {one: _Way(names, text, _pieces_or_numbers(one)) for one in names}
    return _read(tree, masks, ways.__getitem__, "one file a class")


def _read(
    tree: Tree,
    masks: Mapping[str, Mapping[str, Sequence[str]]],
    way_of: Callable[[str], _Way],
    kind: str,
) -> ObjectMasks:
    def read(own: Mapping[str, Sequence[str]]) -> tuple[Pieces, str]:
        found = Pieces([])
        sizes = set()
        for group, files in own.items():
            for name in files:
                try:
                    raw = mask_files.read_raw(tree.read(name), tree.files[name])
                    pieces = way_of(group).reader(raw, name)
                except DataError as error:
                    return Pieces([]), f"has a mask that cannot be used: {str(error).rstrip('.')}"
                sizes.add(raw.array.shape[:2])
                found = Pieces([*found.objects, *pieces.objects], found.specks + pieces.specks)
        return found, "" if len(sizes) == 1 else "has masks of several sizes. Mend them"

    with ThreadPoolExecutor() as pool:
        found = dict(zip(masks, pool.map(read, masks.values()), strict=True))
    way = way_of(next(iter(next(iter(masks.values())))))
    right = [pieces for pieces, trouble in found.values() if not trouble]
    number = count(sum(len(one.objects) for one in right), "object")
    notes = [f"{number} in {count(len(right), 'image')}. {way.text}"]
    if specks := sum(one.specks for one in right):
        notes.append(f"{count(specks, 'piece')} of fewer than {SPECK} pixels left aside.")
    targets = {
        picture: "" if trouble else dump_target(pieces.objects)
        for picture, (pieces, trouble) in found.items()
    }
    broken = {picture: trouble for picture, (_, trouble) in found.items() if trouble}
    return ObjectMasks(targets, broken, Header(Truth("instances", way.names), tuple(notes)), kind)


# Numbers


def _numbers(header: Header) -> _Way:
    """Return how a label map is read: each number that is not 0 is one object, in one piece or several."""
    named = [one for one in header.truth.names[1:2] if header.objects and one != FOREGROUND]
    name = named[0] if named else OBJECT
    text = (
        f"Each number of a mask is one object of the class {name}, and 0 is none. For their area as a whole: --task "
        "segment. If the numbers are those of classes, name them in classes.txt."
    )
    return _Way((name,), text, lambda raw, file: Pieces(list(_numbered(raw, file, name))))


def _numbered(raw: mask_files.RawMask, file: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the object of each number, or of each colour that is not black."""
    from scipy.ndimage import find_objects  # slow to import

    array = mask_files.codes_of(raw.array) if raw.coloured else raw.array
    values, places = np.unique(array, return_inverse=True)
    if len(values) > MOST + 1:
        raise DataError(
            f"{file} holds {len(values):,} different numbers, and a label map has one for each object, at most "
            f"{MOST:,}. Is it an image? Write the numbers of the objects from 1 on, and 0 where there is none."
        )
    void = _void_of(array, values)
    numbers = places.reshape(array.shape).astype(np.int32) + 1
    for number, (value, around) in enumerate(zip(values.tolist(), find_objects(numbers), strict=True), 1):
        if value not in (0, void) and around is not None:
            yield _object(name, numbers[around] == number, around, array.shape)


def _void_of(array: Array, values: Array) -> int | None:
    """Return the number that counts nowhere: 255 of a map of bytes whose objects do not reach it, and -1."""
    if array.dtype == np.uint8:
        return mask_files.VOID if mask_files.VOID in values and mask_files.VOID - 1 not in values else None
    return -1


def _object(
    name: str, mask: NDArray[np.bool_], around: tuple[slice, slice], size: tuple[int, ...]
) -> dict[str, Any]:
    down, across = around
    corner = (int(down.start), int(across.start))
    box = [corner[1], corner[0], int(across.stop), int(down.stop)]
    return {"class": name, "box": box, "rle": runs_at(mask, corner, (size[0], size[1])).to_dict()}


# Pieces


def _is_binary(truth: Truth) -> bool:
    first, *others = truth.names
    return len(others) == 1 and first.strip("_").lower() in GROUNDS


def _regions(truth: Truth) -> _Way:
    name = truth.names[1] if truth.names[1] != FOREGROUND else OBJECT
    text = (
        f"The masks tell no objects apart: each connected piece of {truth.names[1]} is taken for one object of the "
        f"class {name}, and those that touch are one."
    )

    def reader(raw: mask_files.RawMask, file: str) -> Pieces:
        return _pieces(_decoded(raw, truth, file) == 1, name)

    return _Way((name,), text, reader)


def _decoded(raw: mask_files.RawMask, truth: Truth, file: str) -> NDArray[np.uint8]:
    try:
        return mask_files.decode_mask(raw, truth, file)
    except mask_files.StrangeValueError as error:
        if truth.values == (0, mask_files.VOID) and len(error.pixels) > _SMOOTHED:
            raise DataError(f"{file} has smoothed edges. {mask_files.SHARPEN}") from error
        raise


def _classes(truth: Truth) -> _Way:
    """Return how masks of classes are read: the connected pieces of all classes but the background."""
    named = [(place, one) for place, one in enumerate(truth.names) if one.strip("_").lower() not in GROUNDS]
    names = tuple(one for _, one in named)
    text = (
        f"The masks tell classes and no objects: each connected piece of {shorten(names, 12)} is taken for one object, "
        "and those that touch are one. If not all of these are things: --things car,pedestrian"
    )

    def reader(raw: mask_files.RawMask, file: str) -> Pieces:
        areas = _decoded(raw, truth, file)
        found = [_pieces(areas == place, one) for place, one in named]
        return Pieces([one for own in found for one in own.objects], sum(own.specks for own in found))

    return _Way(names, text, reader)


def _pieces(region: NDArray[np.bool_], name: str) -> Pieces:
    """Return the pieces of a region (height, width) that are connected, over corners too."""
    from scipy.ndimage import find_objects, label

    numbers, _ = label(region, np.ones((3, 3)))
    found = []
    specks = 0
    for number, around in enumerate(find_objects(numbers), 1):
        mask = numbers[around] == number
        if mask.sum() < SPECK:
            specks += 1
        else:
            found.append(_object(name, mask, around, region.shape))
    return Pieces(found, specks)


def _pieces_or_numbers(name: str) -> _Reader:
    def reader(raw: mask_files.RawMask, file: str) -> Pieces:
        if raw.coloured or len(np.unique(raw.array)) <= 2:
            return _pieces(_region(raw), name)
        return Pieces(list(_numbered(raw, file, name)))

    return reader


def _whole(name: str) -> _Reader:
    """Return a reader of masks of one object each, in one piece or several."""
    from scipy.ndimage import find_objects

    def reader(raw: mask_files.RawMask, file: str) -> Pieces:
        region = _region(raw)
        around = find_objects(region.astype(np.uint8))
        if not around:
            return Pieces([])
        return Pieces([_object(name, region[around[0]], around[0], region.shape)])

    return reader


def _region(raw: mask_files.RawMask) -> NDArray[np.bool_]:
    region: NDArray[np.bool_] = np.asarray(raw.array.any(-1) if raw.coloured else raw.array != 0)
    return region
