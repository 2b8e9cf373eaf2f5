"""Class folders: root/class/*.jpg, or root/train|val|test/class/*.jpg; deeper ones count as their class."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vitrail.core.errors import DataError
from vitrail.data.labels import count, label, natural, shorten, splits_of
from vitrail.data.layouts import filenames
from vitrail.data.layouts.base import ALONE, Entry, Layout, Tree

Parts = list[tuple[str, ...]]

_PLAIN = frozenset((
    "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "part", "parts", "batch",
    "batches", "data", "dataset", "set", "folder", "dir", "chunk", "shard", "download", "downloads", "file", "files",
    "archive", "volume", "vol", "disk", "new", "old", "misc", "all", "jpg", "jpeg", "png", "train", "test", "val",
))  # fmt: skip
"""Usual names of folders that contain images of all classes."""


def look(tree: Tree) -> Layout | None:
    """Distinguish class folders from split folders; None if no image is in a class folder.

    Raises:
        DataError: there is only one class, or a class without a name.
    """
    names = _without_masks(tree.pictures)
    parts = [tuple(name.split("/")) for name in names]
    places = _places(parts, tree)
    entries, stray = [], []
    words: set[str] = set()
    for name, part, (depth, split) in zip(names, parts, places, strict=True):
        if depth < 0:
            stray.append(name)
        elif not (word := label(part[depth])):
            raise DataError(
                f"{tree.name} holds a class folder whose name is blank ({name!r}). Give it a name."
            )
        else:
            words.add(word)
            entries.append(tree.of_class(name, word, split))
    classes = sorted(words, key=natural)
    if not classes:
        return None
    like_splits = splits_of(classes)
    if len(classes) == 1 or like_splits:  # these may not be classes
        if (named := filenames.look(tree)) is not None:
            return named
        if len(like_splits) == len(classes):
            return None
    if len(classes) == 1:
        raise DataError(
            f"{tree.name} holds one class only, {classes[0]!r}. Add a folder of {tree.noun}s of something else."
            f"{'' if tree.clips else f' {ALONE}'}"
        )
    masks = len(tree.pictures) - len(names)
    within = any(split for _, split in places) and not _split_places(parts, tree)
    notes = (
        *_aside(tree.noun, stray, masks),
        *_deeper(tree.noun, parts, places, within),
        *_empty(tree, classes),
    )
    found = (*entries, *tree.refused)
    return Layout(
        "folders", tree.root, _why(tree.noun, classes, entries), found, notes, plain=_plain(classes)
    )


def _without_masks(names: list[str]) -> list[str]:
    """Return the images without the masks beside them: cat/masks beside cat/images."""
    folders = {name.rpartition("/")[0] for name in names}
    masks = {
        folder
        for folder in folders
        if re.fullmatch(r"(.*/)?(masks?|ground_?truths?)", folder, re.IGNORECASE)
        and any(f"{folder.rpartition('/')[0]}/{word}".lstrip("/") in folders for word in ("images", "image"))
    }
    return [name for name in names if name.rpartition("/")[0] not in masks] if masks else names


def wrapping(parts: Parts) -> int:
    """Return the number of folders around everything: a single folder around class folders is not a class."""
    depth = 0
    while (
        parts and all(len(part) > depth + 2 for part in parts) and len({part[depth] for part in parts}) == 1
    ):
        depth += 1
    return depth


def _places(parts: Parts, tree: Tree) -> list[tuple[int, str]]:
    """Return for every image the depth of its class folder (-1: none), and its split."""
    splits = _split_places(parts, tree)
    if splits:
        inner = {split: _inner(parts, splits, split) for split in set(splits.values())}
        return [_in_split(part, splits, inner) for part in parts]
    depth, within = wrapping(parts), _splits_in_classes(parts, tree)
    inside = [part[depth:] for part in parts]
    return [
        (depth, within.get(part[1], "") if len(part) > 2 else "") if len(part) > 1 else (-1, "")
        for part in inside
    ]


def _split_places(parts: Parts, tree: Tree) -> dict[tuple[str, ...], str]:
    """Return folder path → split; empty if folders with such names are classes.

    Sibling folders are splits if one of them is the train split and most of their images are in deeper folders.
    """
    children: dict[tuple[str, ...], dict[str, None]] = {}
    for part in parts:
        for end in range(len(part) - 1):
            children.setdefault(part[:end], {})[part[end]] = None
    splits: dict[tuple[str, ...], str] = {}
    for above, names in sorted(children.items(), key=lambda pair: len(pair[0])):
        named = tree.options.splits_among(names)
        if "train" not in named.values() or any(above[:end] in splits for end in range(1, len(above) + 1)):
            continue
        inside = [part for part in parts if part[: len(above)] == above and part[len(above)] in named]
        deeper = sum(len(part) > len(above) + 2 for part in inside)
        if 2 * deeper > len(inside):
            splits.update({(*above, name): split for name, split in named.items()})
    return splits


def _inner(parts: Parts, splits: dict[tuple[str, ...], str], split: str) -> int:
    """Count the folders that wrap the classes of a split once more: seg_train/seg_train/circle."""
    inside = [
        part[len(top) :]
        for part in parts
        for top, own in splits.items()
        if own == split and part[: len(top)] == top
    ]
    return wrapping([part for part in inside if len(part) > 1])


def _in_split(
    part: tuple[str, ...], splits: dict[tuple[str, ...], str], inner: dict[str, int]
) -> tuple[int, str]:
    for end in range(1, len(part)):
        if split := splits.get(part[:end]):
            depth = end + inner[split]
            return (depth, split) if len(part) > depth + 1 else (-1, split)
    return -1, ""


def _splits_in_classes(parts: Parts, tree: Tree) -> dict[str, str]:
    """Return folder → split where every class folder is cut into splits: circle/train/1.png, circle/test/2.png."""
    depth = wrapping(parts)
    inside = [part[depth:] for part in parts]
    below = [part[1] for part in inside if len(part) > 2]
    named = tree.options.splits_among(dict.fromkeys(below))
    all_of_it = len(below) == sum(len(part) > 1 for part in inside) and set(below) == set(named)
    return named if all_of_it and "train" in named.values() else {}


def _aside(noun: str, stray: list[str], masks: int) -> list[str]:
    notes = []
    if masks:
        notes.append(f"{count(masks, 'mask')} beside the images left aside: classes need none.")
    if stray:
        notes.append(f"{count(len(stray), noun)} outside any class folder left aside: {shorten(stray)}.")
    return notes


def _deeper(noun: str, parts: Parts, places: list[tuple[int, str]], within: bool) -> list[str]:
    deep = sum(
        depth >= 0 and depth + 2 + within < len(part) for part, (depth, _) in zip(parts, places, strict=True)
    )
    return [f"{count(deep, noun)} in folders inside class folders: taken as their class."] if deep else []


def _empty(tree: Tree, classes: list[str]) -> list[str]:
    """Return notes on folders beside class folders without images, which are not classes."""
    above = {folder.rpartition("/")[0] for name in tree.pictures if (folder := name.rpartition("/")[0])}
    full = {
        "/".join(name.split("/")[:end]) for name in tree.pictures for end in range(1, name.count("/") + 1)
    }
    listed = dict.fromkeys((*tree.folders, *(name.rpartition("/")[0] for name in tree.files)))
    empty = [
        one
        for one in listed
        if one
        and one not in full
        and one.rpartition("/")[0] in above
        and label(one.rpartition("/")[2]) not in classes
    ]
    return [f"No {tree.noun} in {shorten(empty)}: no class comes of it."] if empty else []


def _plain(classes: list[str]) -> str:
    """Return why names of folders may not be classes, as a predicate; "" if they are plausible classes."""
    words = [re.findall(r"[^\W\d_]+", name.casefold()) for name in classes]
    stems = {re.sub(r"[\W\d_]*([a-z]|[ivx]+|\d+)?$", "", name.casefold()) for name in classes}
    if all(one and all(word in _PLAIN or len(word) == 1 for word in one) for one in words):
        only_letters = all(len(word) == 1 for one in words for word in one)
        return "are single letters" if only_letters else "are called like parts of a download"
    return "are one name and a number" if len(stems) == 1 and len(next(iter(stems))) > 1 else ""


def _why(noun: str, classes: list[str], entries: Iterable[Entry]) -> str:
    shown = shorten(classes)
    given = {entry.split for entry in entries}
    splits = [split for split in ("train", "val", "test") if split in given]
    if not splits:
        return f"class folders, because {count(len(classes), 'folder')} hold the {noun}s: {shown}."
    return (
        f"class folders with a split of their own ({', '.join(splits)}), because the folders above the "
        f"{count(len(classes), 'class', 'classes')} ({shown}) are called so."
    )
