"""COCO, YOLO and Pascal VOC: the boxes of an image as its truth, or cropped boxes for classification."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from xml.etree import ElementTree

import yaml

from vitrail.core.errors import DataError
from vitrail.data.decode import decode
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.labels import count, is_image, join_labels, label, natural, shorten, split_of
from vitrail.data.layouts import coco
from vitrail.data.layouts.annotations import few
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage
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
    drawn = _whole(tree, reader)
    pictures = _merged(drawn.pictures)
    entries = [one.entry(tree, _target(one.boxes)) for one in pictures.values()]
    boxes = count(sum(len(one.boxes) for one in pictures.values()), "box", "boxes")
    names = sorted({label(box.label) for one in pictures.values() for box in one.boxes}, key=natural)
    outlined = any({"polygons", "rle"} & box.more.keys() for one in pictures.values() for box in one.boxes)
    why = f"{name} boxes, because {because}: {boxes} on {count(len(entries), 'image')}."
    truth = Truth("boxes", tuple(names))
    return Layout(
        "boxes",
        tree.root,
        why,
        (*entries, *tree.refused),
        drawn.notes,
        truth,
        _refusal(tree, f"{name}, because {because}", outlined),
    )


def _refusal(tree: Tree, what: str, outlined: bool) -> str:
    """Return the message for boxes without a named task."""
    crops = "As classification I can take the crops: --layout crops."
    own = "A task of your own can learn them (--task my_module:MyTask)."
    if outlined:
        return f"{tree.name} holds boxes ({what}) with outlines. To learn these as masks: --task segment. {crops} {own}"
    return f"{tree.name} holds boxes ({what}): detection comes later. {own} {crops}"


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
    pictures = _merged(drawn.pictures).values()
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
    return kind[0], kind[1], drawn._replace(pictures=list(_merged(drawn.pictures).values()))


def _merged(pictures: Iterable[OutlinedImage]) -> dict[str, OutlinedImage]:
    """Return images by name, with the boxes of all files combined."""
    found: dict[str, OutlinedImage] = {}
    for one in pictures:
        known = found.setdefault(one.name, one._replace(boxes=[]))
        known.boxes.extend(one.boxes)
        found[one.name] = known._replace(
            split=known.split or one.split,
            trouble=known.trouble or one.trouble,
            size=max(known.size, one.size),
        )
    return found


def _target(boxes: list[Box]) -> str:
    """Return boxes as the target of a row: a list of class, corners in pixels, and flags."""
    return dump_target(
        [{"class": label(box.label), "box": [_short(n) for n in box.corners], **box.more} for box in boxes]
    )


def _short(number: float) -> float | int:
    """Return a number rounded to a thousandth, whole numbers without a decimal point."""
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _drawn(reader: Callable[[Tree], Iterator[OutlinedImage]]) -> _Reader:
    return lambda tree: Drawn(list(reader(tree)))


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
    if files := [name for name in few(tree, ".json") if coco.content_of(tree, name) is not None]:
        return "COCO", f"{files[0]} lists images, annotations and categories", coco.read
    if cvat := [name for name in few(tree, ".xml") if _is_cvat(tree.read(name))]:
        return "CVAT", f"{cvat[0]} holds images and their boxes", _drawn(_cvat)
    xml = [name for name in tree.files if name.endswith(".xml")]
    if xml and b"<bndbox>" in tree.read(xml[0]):
        return "Pascal VOC", f"{count(len(xml), 'XML file')} such as {xml[0]} hold them", _drawn(_voc)
    if names := _yolo_names(tree):
        return "YOLO", f"{names[0]} names the classes of the text files in labels/", _drawn(_yolo)
    return None


def _voc(tree: Tree) -> Iterator[OutlinedImage]:
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
            boxes.append(Box(one.findtext("name", ""), corners, flags))
        yield OutlinedImage(stems[stem], splits.get(stem, ""), boxes)


def _is_cvat(data: bytes) -> bool:
    return b"<image" in data and (b"<box" in data or b"<polygon" in data)


def _cvat(tree: Tree) -> Iterator[OutlinedImage]:
    """Read "CVAT for images": boxes and polygons of every image, corners in pixels from 0."""
    find = Finder({name: name for name in tree.pictures}, tree.root)
    for file in (name for name in few(tree, ".xml") if _is_cvat(tree.read(name))):
        for image in ElementTree.fromstring(tree.read(file)).iter("image"):
            said, split = image.attrib["name"], split_of(image.attrib.get("subset", "")) or ""
            boxes = [_cvat_box(one) for one in image if one.tag in {"box", "polygon"}]
            picture, trouble = find(said, folder_of(file), split)
            if not trouble and picture in tree.files:
                yield OutlinedImage(picture, split, boxes)
            elif len(several := find.called(said, split)) > 1:
                trouble = f"is listed in {file} and may be {shorten(several)}: write its folder there, too"
                yield OutlinedImage(said, split, [], trouble)


def _cvat_box(shape: ElementTree.Element) -> Box:
    known = shape.attrib
    if shape.tag == "box":
        left, top, right, bottom = (float(known[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        return Box(known["label"], (left, top, right, bottom), {})
    points = [float(number) for pair in known["points"].split(";") for number in pair.split(",")]
    xs, ys = points[::2], points[1::2]
    corners = (min(xs), min(ys), max(xs), max(ys))
    return Box(known["label"], corners, {"polygons": [[_short(number) for number in points]]})


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


def _yolo(tree: Tree) -> Iterator[OutlinedImage]:
    found = _yolo_names(tree)
    assert found is not None
    for name in tree.files:
        beside = "/".join("labels" if part == "images" else part for part in name.split("/"))
        text = beside.rsplit(".", 1)[0] + ".txt"
        if not is_image(name):
            continue
        split = next((s for part in name.split("/") if (s := split_of(part))), "")
        lines = tree.read(text).decode().splitlines() if text in tree.files else []
        size = decode(tree.read(name), name=name).image.shape[:2] if any(map(str.split, lines)) else (0, 0)
        yield OutlinedImage(name, split, [box for line in lines if (box := _line(line, found[1], size))])


def _line(line: str, names: list[str], size: tuple[int, ...]) -> Box | None:
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
    return Box(names[int(number)], corners, {"polygons": [polygon]} if outline else {})
