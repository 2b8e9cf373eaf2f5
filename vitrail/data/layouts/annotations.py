"""Read labels of annotation tools: FiftyOne, Label Studio, CVAT, Datumaro, COCO without boxes, ImageNet's lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

from vitrail.core.errors import DataError
from vitrail.data.image_finder import FREELY, Finder, folder_of
from vitrail.data.labels import count, join_labels, shorten, splits_of
from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of
from vitrail.data.table_files import code_of

FEW = 100
"""With at least this number of JSON or XML files there is one per image; fewer can each be for the whole set."""

_CLASS_LISTS = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "names.txt")


class _Labelled(NamedTuple):
    """The labels of one image in a file, with the name that the file uses."""

    name: str
    labels: Sequence[str]


_Reader = Callable[[Any], Iterator[_Labelled]]


def look(tree: Tree) -> Layout | None:
    """Read the labels of images from files of annotation tools; None if there are none."""
    if tree.table:
        return None
    find = Finder({name: tree.files[name] for name in tree.pictures}, tree.root)
    entries: dict[str, Entry] = {}
    used: dict[str, str] = {}
    for name, kind, found in _read(tree):
        split = _split(name, tree)
        rows = [(find(one.name, folder_of(name), split), one) for one in found]
        if not any(not trouble for (_, trouble), _ in rows):
            continue
        used[name] = kind
        for (path, trouble), labelled in rows:
            entries[path] = Entry(path, path, join_labels(labelled.labels), split, trouble=trouble)
    if not used:
        return None
    kinds = " and ".join(dict.fromkeys(used.values()))
    right = sum(not entry.trouble for entry in entries.values())
    verb = "name" if len(used) > 1 else "names"
    why = f"labels of {kinds}, because {shorten(used)} {verb} {count(right, 'image')}."
    notes = [f"{count(find.freely, 'name')} found {FREELY}."] if find.freely else []
    every = (*entries.values(), *tree.refused)
    return Layout("annotations", tree.root, why, every, tuple(notes), truth_of(entries.values()))


def few(tree: Tree, suffix: str) -> list[str]:
    """Return the files of a kind that can be for the whole set; empty if there is one per image."""
    names = [name for name in tree.files if name.lower().endswith(suffix)]
    return names if len(names) < FEW else []


def _split(name: str, tree: Tree) -> str:
    if tree.options.splits == "none":
        return ""
    words = re.split(r"[/._-]", name)
    return next(iter(splits_of([word for word in words if word]).values()), "")


def _read(tree: Tree) -> Iterator[tuple[str, str, Iterator[_Labelled]]]:
    """Yield the name of every file with labels, its tool and its labels."""
    for name in few(tree, ".json"):
        content = as_json(tree, name)
        for kind, fits, reader in _JSON:
            if fits(content):
                yield name, kind, _whole(name, reader, content)
                break
    for name in few(tree, ".xml"):
        data = tree.read(name)
        if b"<tag" in data and b"<image" in data:
            yield name, "CVAT", _whole(name, _cvat, data)
    for name in few(tree, ".txt"):
        if found := list(_listed(tree, name)):
            yield name, "a list", iter(found)


def as_json(tree: Tree, name: str) -> Any:
    """Return the content of a JSON file, None for a broken one."""
    try:
        return json.loads(tree.read(name))
    except ValueError:
        return None


def _whole(name: str, reader: _Reader, content: Any) -> Iterator[_Labelled]:
    """Yield the labels of a file; raise DataError, in one sentence, if a part is missing."""
    try:
        yield from reader(content)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ElementTree.ParseError) as error:
        raise DataError(
            f"{name} lacks a part or has a wrong one ({type(error).__name__}: {error}). Export the annotations again."
        ) from error


def _is_fiftyone(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("labels"), dict)


def _fiftyone(content: Mapping[str, Any]) -> Iterator[_Labelled]:
    """Read FiftyOneImageClassificationDataset: classes, and image → number, name, list of them, or nothing."""
    names = content.get("classes") or []

    def named(value: Any) -> str:
        return str(names[value]) if names and isinstance(value, int) else str(value)

    for picture, value in content["labels"].items():
        value = value.get("label") if isinstance(value, dict) else value
        many = value if isinstance(value, list) else [] if value is None else [value]
        yield _Labelled(picture, [named(one) for one in many])


def _is_label_studio(content: Any) -> bool:
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and isinstance(first.get("data"), dict) and "annotations" in first


def _label_studio(content: Sequence[Mapping[str, Any]]) -> Iterator[_Labelled]:
    """Read tasks whose results are choices; skipped tasks have no label."""
    for task in content:
        picture = next(str(v) for k, v in task["data"].items() if k in {"image", "img", "picture", "photo"})
        chosen = [
            choice
            for annotation in task["annotations"][-1:]
            if not annotation.get("was_cancelled")
            for result in annotation["result"]
            for choice in result["value"].get("choices", ())
        ]
        yield _Labelled(picture, chosen)


def _is_datumaro(content: Any) -> bool:
    return isinstance(content, dict) and {"items", "categories"} <= content.keys()


def _datumaro(content: Mapping[str, Any]) -> Iterator[_Labelled]:
    names = [one["name"] for one in content["categories"]["label"]["labels"]]
    for item in content["items"]:
        path = (item.get("image") or {}).get("path") or (item.get("media") or {}).get("path") or item["id"]
        labels = [names[one["label_id"]] for one in item["annotations"] if one["type"] == "label"]
        yield _Labelled(path, labels)


def is_coco_classes(content: Any) -> bool:
    """Return whether the content is COCO's images, annotations and categories without boxes, as in iNaturalist."""
    if not (isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()):
        return False
    first = content["annotations"][:1]
    return bool(first) and isinstance(first[0], dict) and "category_id" in first[0] and "bbox" not in first[0]


def _coco(content: Mapping[str, Any]) -> Iterator[_Labelled]:
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    labels: dict[Any, list[str]] = {}
    for one in content["annotations"]:
        labels.setdefault(one["image_id"], []).append(names[one["category_id"]])
    for image in content["images"]:
        if image["id"] in labels:
            yield _Labelled(image["file_name"], labels[image["id"]])


def _cvat(data: bytes) -> Iterator[_Labelled]:
    for image in ElementTree.fromstring(data).iter("image"):
        if "name" in image.attrib:
            yield _Labelled(image.attrib["name"], [tag.attrib["label"] for tag in image.iter("tag")])


_JSON: tuple[tuple[str, Callable[[Any], bool], _Reader], ...] = (
    ("FiftyOne", _is_fiftyone, _fiftyone),
    ("Label Studio", _is_label_studio, _label_studio),
    ("Datumaro", _is_datumaro, _datumaro),
    ("COCO without boxes", is_coco_classes, _coco),
)


def _listed(tree: Tree, name: str) -> Iterator[_Labelled]:
    """Read lines with an image and its class, such as "val/0001.jpg 65" in lists of ImageNet."""
    if PurePosixPath(name).name.lower() in _CLASS_LISTS:
        return
    data = tree.read(name)
    lines = [line for line in data.decode(code_of(data), errors="replace").splitlines() if line.strip()]
    parted = [re.split(r"[\s,;]+(?=\S+$)", line.strip()) for line in lines]
    if len(parted) < 2 or any(len(one) != 2 for one in parted):
        return
    known = {picture.rsplit("/", 1)[-1] for picture in tree.pictures}
    known |= {file.rsplit(".", 1)[0] for file in known}
    here = sum(first.rsplit("/", 1)[-1] in known for first, _ in parted)
    if 10 * here < 9 * len(parted):
        return
    names = _class_names(tree, {second for _, second in parted})
    for first, second in parted:
        yield _Labelled(first, [names[int(second)] if names else second])


def _class_names(tree: Tree, cells: set[str]) -> list[str]:
    """Return the names of numbered classes from a list beside the file; empty without one."""
    if not all(cell.isdigit() for cell in cells):
        return []
    for name in tree.files:
        if PurePosixPath(name).name.lower() in _CLASS_LISTS:
            data = tree.read(name)
            names = [line.strip() for line in data.decode(code_of(data), errors="replace").splitlines()]
            names = [one for one in names if one]
            if max(map(int, cells)) < len(names):
                return names
    return []
