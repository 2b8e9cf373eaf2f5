"""COCO, YOLO and Pascal VOC: the boxes of an image as its truth, or cropped boxes for classification."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vitrail.core.errors import DataError
from vitrail.data.labels import count, join_labels, label, natural, shorten
from vitrail.data.layouts import box_tables, coco, cvat, voc, yolo
from vitrail.data.layouts.annotations import few
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.outline_masks import Drawn, OutlinedImage
from vitrail.data.manifest import dump_target
from vitrail.data.truth import Truth

_ROUNDING = 1e-3  # of a pixel: coordinates written as shares with six digits are not exact

_Reader = Callable[[Tree], Drawn]


def look(tree: Tree) -> Layout | None:
    """Return every image with its boxes; None if there are no boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    kind = _kind(tree)
    if kind is None:
        return None
    name, because, reader = kind
    drawn = _with_tables(tree, _whole(tree, reader), name)
    pictures, twice = _merged(drawn.pictures)
    tree = replace(Tree.look(tree.root, tree.options), notes=tree.notes) if tree.table else tree
    entries = [one.entry(tree, _target(one)) for one in pictures.values()]
    if name == "table" and not any(not one.trouble for one in entries):
        return None
    boxes = count(sum(len(one.boxes) for one in pictures.values()), "box", "boxes")
    occurring = {label(box.label) for one in pictures.values() for box in one.boxes}
    stated = dict.fromkeys(map(label, drawn.names))
    names = (*stated, *sorted(occurring - stated.keys(), key=natural))
    outlined = any({"polygons", "rle"} & box.more.keys() for one in pictures.values() for box in one.boxes)
    why = f"{name} boxes, because {because}: {boxes} on {count(len(entries), 'image')}."
    truth = Truth("instances" if outlined and tree.wanted == "instances" else "boxes", names)
    notes = [*drawn.notes, *_left_aside(tree, pictures)]
    notes += [f"{count(twice, 'box', 'boxes')} in several files: taken once."] if twice else []
    return Layout(
        "boxes",
        tree.root,
        why,
        (*entries, *tree.refused),
        tuple(notes),
        truth,
        _refusal(tree, f"{name}, because {because}", outlined),
    )


def _left_aside(tree: Tree, pictures: Mapping[str, OutlinedImage]) -> list[str]:
    """Return a note on images that no annotation describes: they may have objects, so they are no background."""
    rest = [one for one in tree.pictures if one not in pictures] if not tree.options.labels else []
    return [f"{count(len(rest), 'image')} without annotations left aside: {shorten(rest)}."] if rest else []


def _refusal(tree: Tree, what: str, outlined: bool) -> str:
    """Return the message for boxes without a named task."""
    masks = (
        " To learn the outlines as objects: --task instances; as masks: --task segment." if outlined else ""
    )
    return (
        f"{tree.name} holds boxes ({what}). To learn them: --task detect.{masks} As classification I can take the "
        "crops: --layout crops."
    )


def crops(tree: Tree) -> Layout | None:
    """Return every box as an image; boxes of one image form a group. None if there are no boxes.

    Raises:
        DataError: an annotation file is broken.
    """
    kind = _kind(tree)
    if kind is None:
        return None
    name, because, reader = kind
    drawn = _whole(tree, reader)
    tree = replace(Tree.look(tree.root, tree.options), notes=tree.notes) if tree.table else tree
    pictures = _merged(drawn.pictures)[0].values()
    bad = [one.entry(tree, "") for one in pictures if one.trouble]
    entries: dict[str, Entry] = {}
    for picture, box in ((one, box) for one in pictures if not one.trouble for box in one.boxes):
        if box.more.get("crowd"):
            continue
        left, top = (math.floor(max(0, corner) + _ROUNDING) for corner in box.corners[:2])
        right, bottom = (math.ceil(corner - _ROUNDING) for corner in box.corners[2:])
        file = tree.files[picture.name]
        path = f"{file}!{left},{top},{max(left, right)},{max(top, bottom)}"
        thin = "is a box of fewer than two pixels" if min(right - left, bottom - top) < 2 else ""
        entries[path] = Entry(path, path, join_labels([box.label]), picture.split, file, thin)
    boxes = count(len(entries), "box", "boxes")
    why = f"the crops of {name} boxes, because {because}: {boxes}, one image each."
    return Layout("crops", tree.root, why, (*entries.values(), *bad, *tree.refused), drawn.notes)


def kind_of(tree: Tree) -> tuple[str, str, Drawn] | None:
    """Return the format of the boxes, the reason, and each image with its boxes; None if there are none."""
    kind = _kind(tree)
    if kind is None:
        return None
    drawn = _whole(tree, kind[2])
    return kind[0], kind[1], drawn._replace(pictures=list(_merged(drawn.pictures)[0].values()))


def _merged(pictures: Iterable[OutlinedImage]) -> tuple[dict[str, OutlinedImage], int]:
    """Return images by name with the boxes of all files, and the number of boxes that several files repeat.

    Boxes of one file are kept, even if they are equal: a check reports them.
    """
    found: dict[str, OutlinedImage] = {}
    twice = 0
    for one in pictures:
        known = found.get(one.name)
        if known is None:
            found[one.name] = one._replace(boxes=list(one.boxes))
            continue
        there = {(box.label, box.corners) for box in known.boxes}
        fresh = [box for box in one.boxes if (box.label, box.corners) not in there]
        twice += len(one.boxes) - len(fresh)
        known.boxes.extend(fresh)
        found[one.name] = known._replace(
            split=known.split or one.split,
            trouble=known.trouble or one.trouble,
            size=max(known.size, one.size),
        )
    return found, twice


def _target(image: OutlinedImage) -> str:
    """Return boxes as the target of a row: a list of class, corners in pixels, and flags.

    "of" is the (height, width) of the image that the annotation states, to find boxes in another frame.
    """
    size = {"of": list(image.size)} if any(image.size) else {}
    return dump_target(
        [
            {"class": label(box.label), "box": [_short(n) for n in box.corners], **box.more, **size}
            for box in image.boxes
        ]
    )


def _short(number: float) -> float | int:
    """Return a number rounded to a thousandth, whole numbers without a decimal point."""
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _whole(tree: Tree, reader: _Reader) -> Drawn:
    """Return the images; raise DataError, in one sentence, if a part of an annotation is missing."""
    try:
        return reader(tree)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"An annotation in {tree.name} lacks a part or has a wrong one ({type(error).__name__}: {error}). "
            "Export the annotations again."
        ) from error


def _kind(tree: Tree) -> tuple[str, str, _Reader] | None:
    """Return the format of the boxes, the reason, and its reader."""
    if tree.table or tree.options.labels:
        tables = box_tables.names(tree)
        return _of_tables(tables) if tables else None
    if files := [name for name in few(tree, ".json") if coco.content_of(tree, name) is not None]:
        return "COCO", f"{files[0]} lists images, annotations and categories", coco.read
    if files := cvat.xml_files(tree):
        return "CVAT", f"{files[0]} holds images and their boxes", cvat.read
    if files := voc.xml_files(tree):
        return "Pascal VOC", f"{count(len(files), 'XML file')} such as {files[0]} hold them", voc.read
    classes = yolo.classes_of(tree)
    if classes is not None:
        return "YOLO", f"{classes.file} names the classes of the text files in labels/", yolo.read
    tables = box_tables.names(tree)
    return _of_tables(tables) if tables else None


def _of_tables(names: Sequence[str]) -> tuple[str, str, _Reader]:
    rows = "has" if len(names) == 1 else "have"
    return "table", f"{shorten(names)} {rows} a box in each row", box_tables.read


def _with_tables(tree: Tree, drawn: Drawn, name: str) -> Drawn:
    """Add images that only tables of boxes describe, beside the annotations of another format."""
    tables = [] if name == "table" else box_tables.names(tree)
    if not tables:
        return drawn
    known = {one.name for one in drawn.pictures}
    others = [one for one in box_tables.read(tree).pictures if one.name not in known]
    added = len({one.name for one in others})
    note = f"{shorten(tables)} left aside: {name} annotations describe the same images."
    if added:
        note = (
            f"{count(added, 'image')} only in {shorten(tables)} taken from there; for others {name} is used."
        )
    return drawn._replace(pictures=[*drawn.pictures, *others], notes=(*drawn.notes, note))
