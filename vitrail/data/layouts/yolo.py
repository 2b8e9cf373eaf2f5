"""Read YOLO: data.yaml with classes and splits, and one text file per image with boxes in shares of its size."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import yaml
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.decode import decode
from vitrail.data.image_finder import Finder, folder_of
from vitrail.data.labels import count, is_image, shorten, split_of
from vitrail.data.layouts.annotations import few
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.outline_masks import Box, Drawn, OutlinedImage
from vitrail.data.table_files import code_of

LISTS_OF_CLASSES = ("classes.txt", "obj.names", "classes.names", "predefined_classes.txt")

_ORIENTATION = 0x0112

_FAR = 1.5
"""Larger numbers are pixels and not shares; a box over the border of its image may reach a little beyond 1."""


class Classes(NamedTuple):
    """The file that names the classes, their names by number, and its other content."""

    file: str
    names: dict[int, str]
    content: dict[str, Any]


class _LabelError(ValueError):
    """A line of a label file is wrong; the message is a predicate of its image."""


def classes_of(tree: Tree) -> Classes | None:
    """Return the classes of a source in YOLO's form; None for another form."""
    if not any(_label_file(name) in tree.files for name in tree.pictures):
        return None
    for name in (*few(tree, ".yaml"), *few(tree, ".yml")):
        try:
            content = yaml.safe_load(tree.read(name))
        except yaml.YAMLError:
            continue
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict):
            return Classes(name, {int(key): str(one) for key, one in names.items()}, content)
    for name in tree.files:
        if name.rsplit("/", 1)[-1].lower() in LISTS_OF_CLASSES and _numbered(tree):
            data = tree.read(name)
            lines = data.decode(code_of(data), errors="replace").splitlines()
            return Classes(name, dict(enumerate(line.strip() for line in lines if line.strip())), {})
    return None


def is_label_file(tree: Tree, name: str) -> bool:
    """Return whether a file has a number of a class and shares of an image in its first line."""
    if not name.lower().endswith(".txt"):
        return False
    first = next((line.split() for line in _lines(tree, name) if line.strip()), [])
    return len(first) >= 5 and first[0].isdigit() and all(_is_share(one) for one in first[1:])


def _is_share(word: str) -> bool:
    try:
        return -_FAR < float(word) < _FAR
    except ValueError:
        return False


def _numbered(tree: Tree) -> bool:
    """Return whether the first text file of an image that is not empty has a number and four shares in each line."""
    for name in tree.pictures:
        lines = [line.split() for line in _lines(tree, _label_file(name)) if line.strip()]
        if lines:
            return all(len(one) >= 5 and one[0].isdigit() for one in lines)
    return False


def _label_file(name: str) -> str:
    """Return the text file of an image: in labels/ instead of images/, else beside it."""
    stem = name.rsplit(".", 1)[0] + ".txt"
    head, mark, tail = f"/{stem}".rpartition("/images/")
    return f"{head}/labels/{tail}".removeprefix("/") if mark else stem


def _lines(tree: Tree, name: str) -> list[str]:
    return tree.read(name).decode("utf-8", errors="replace").splitlines() if name in tree.files else []


def read(tree: Tree) -> Drawn:
    """Return the images with their boxes; those with an empty text file or none are background."""
    classes = classes_of(tree)
    assert classes is not None
    stated, said = _stated_splits(tree, classes)
    chosen = [name for name in tree.pictures if name in stated] if stated else tree.pictures
    found = [_image(tree, name, classes, stated) for name in chosen if is_image(name)]
    notes = list(said)
    if rest := [name for name in tree.pictures if stated and name not in stated]:
        text = (
            f"{count(len(rest), 'image')} outside the folders of {classes.file} left aside: {shorten(rest)}."
        )
        notes.append(text)
    bare = [name for name in chosen if _label_file(name) not in tree.files]
    if bare:
        notes.append(f"{count(len(bare), 'image')} without a text file taken as background: {shorten(bare)}.")
    return Drawn(found, tuple(notes), tuple(classes.names[key] for key in sorted(classes.names)))


def _image(tree: Tree, name: str, classes: Classes, stated: dict[str, str]) -> OutlinedImage:
    split = stated.get(name) or next((s for part in name.split("/")[:-1] if (s := split_of(part))), "")
    text = _label_file(name)
    lines = [(i, line.split()) for i, line in enumerate(_lines(tree, text), 1) if line.strip()]
    size = upright_size(tree, name) if lines else (0, 0)
    if not any(size):  # background, or an image that cannot be read, which its check reports
        return OutlinedImage(name, split, [])
    boxes = []
    for number, words in lines:
        try:
            boxes.append(_box(words, classes, size))
        except _LabelError as error:
            return OutlinedImage(name, split, [], f"{error} in line {number} of {text}")
    outlined = any(box.more for box in boxes)
    return OutlinedImage(name, split, boxes, size=size if outlined else (0, 0))


def upright_size(tree: Tree, name: str) -> tuple[int, int]:
    """Return the (height, width) of an image as it is shown, turned by its EXIF tag; (0, 0) if it is unreadable."""
    data = tree.read(name)
    try:
        with Image.open(BytesIO(data)) as image:
            lying = image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}
            return image.size if lying else (image.height, image.width)
    except (OSError, SyntaxError, ValueError):
        pass
    try:
        height, width = decode(data, name=name).image.shape[:2]
    except DataError:
        return 0, 0
    return height, width


def _box(words: Sequence[str], classes: Classes, size: tuple[int, int]) -> Box:
    """Read a class and a box, or a polygon, in shares of (height, width); a score or key points after a box."""
    try:
        kind, numbers = int(float(words[0])), [float(one) for one in words[1:]]
    except ValueError as error:
        raise _LabelError(f"has something that is no number ({' '.join(words)[:40]!r})") from error
    if kind not in classes.names:
        least, most = min(classes.names), max(classes.names)
        raise _LabelError(
            f"has the class number {kind}, but {classes.file} names {count(len(classes.names), 'class', 'classes')} "
            f"({least} to {most}),"
        )
    if len(numbers) in {4, 5} or (len(numbers) > 5 and "kpt_shape" in classes.content):
        x, y, w, h = numbers[:4]
        xs, ys, outline = [x - w / 2, x + w / 2], [y - h / 2, y + h / 2], False
    elif len(numbers) >= 6 and not len(numbers) % 2:  # a polygon: its box
        xs, ys, outline = numbers[::2], numbers[1::2], True
    else:
        raise _LabelError(f"has {count(len(numbers), 'number')} after the class instead of four")
    if max(map(abs, (*xs, *ys))) > _FAR:
        raise _LabelError("has coordinates in pixels, but YOLO uses shares of the image from 0 to 1,")
    height, width = size
    corners = (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    polygon = [round(n, 3) for x, y in zip(xs, ys, strict=True) for n in (x * width, y * height)]
    return Box(classes.names[kind], corners, {"polygons": [polygon]} if outline else {})


# Splits


class _Stated(NamedTuple):
    """The split of each image that data.yaml names by folders or lists, and notes on it."""

    splits: dict[str, str]
    notes: tuple[str, ...]


def _stated_splits(tree: Tree, classes: Classes) -> _Stated:
    """Return the splits of data.yaml; an image of several is not used for training."""
    found: dict[str, str] = {}
    notes: list[str] = []
    find = Finder({name: name for name in tree.pictures}, tree.root)
    train: list[str] = []
    for key, split in (("test", "test"), ("val", "val"), ("train", "train")):
        stated = classes.content.get(key)
        for place in stated if isinstance(stated, list) else [stated] if stated else []:
            names = list(_images_at(tree, classes, str(place), find))
            train += names if key == "train" else []
            for name in names:
                found.setdefault(name, split)
            if not names:
                notes.append(f"{classes.file} names {place} as {split}, but no image is there.")
    if train and "train" not in found.values():
        found.update(dict.fromkeys(train, "train"))
        notes.append(
            f"{classes.file} names the images for training as another split, too: used for training."
        )
    if set(found.values()) == {"train"}:  # no split at all
        found = dict.fromkeys(found, "")
    return _Stated(found, tuple(notes))


def _images_at(tree: Tree, classes: Classes, place: str, find: Finder) -> Iterator[str]:
    folders = {name.rpartition("/")[0] for name in tree.pictures}
    above = {
        "/".join(parts[:i]) for parts in (one.split("/") for one in folders) for i in range(len(parts) + 1)
    }
    for path in _meanings(classes, place):
        if path in tree.files:
            if is_image(path):
                yield path
                return
            for line in _lines(tree, path):
                name, trouble = find(line, folder_of(path)) if line.strip() else ("", "empty")
                if not trouble and name in tree.files:
                    yield name
            return
        if path in above:
            inside = f"{path}/" if path else ""
            yield from (name for name in tree.pictures if name.startswith(inside))
            return


def _meanings(classes: Classes, place: str) -> Iterator[str]:
    """Yield the paths in the tree that an entry of data.yaml can mean, the most likely first.

    Entries are relative to `path`, which may be a folder of another computer, or to data.yaml; `../` is often one too
    many. The last meanings are ever shorter ends of the path.
    """
    base = folder_of(classes.file)
    place, path = (
        one.replace("\\", "/").rstrip("/") for one in (place, str(classes.content.get("path") or ""))
    )
    for start in dict.fromkeys((posixpath.join(base, path), base)):
        whole = posixpath.normpath(posixpath.join(start, place))
        yield "" if whole == "." else whole
    parts = [part for part in f"{path}/{place}".split("/") if part not in {"", ".", ".."}]
    for i in range(max(1, len(parts) - 1) if "/" in place.removeprefix("../") else len(parts)):
        yield base + "/".join(parts[i:])
        yield "/".join(parts[i:])
