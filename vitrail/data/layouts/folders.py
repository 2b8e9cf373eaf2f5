"""Class folders: root/class/*.jpg, or root/train|val|test/class/*.jpg; deeper ones count as their class."""

from __future__ import annotations

import re

from vitrail.core.errors import DataError
from vitrail.data.layouts import filenames
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.names import count, label, natural, some, split_of

Parts = list[tuple[str, ...]]


def look(tree: Tree) -> Layout | None:
    """Tell classes from splits; None where no picture lies in a class folder.

    Raises:
        DataError: one class only.
    """
    parts = [tuple(name.split("/")) for name in tree.pictures]
    depth = wrapping(parts)
    parts = [part[depth:] for part in parts]
    splits = _splits(parts)
    entries, stray = [], []
    words: set[str] = set()
    for name, part in zip(tree.pictures, parts, strict=True):
        split = splits.get(part[0], "")
        inner = part[1:] if split else part
        if len(inner) < 2 or (splits and not split):
            stray.append(name)
        else:
            words.add(word := label(inner[0]))
            entries.append(tree.of_class(name, word, split))
    classes = sorted(words, key=natural)
    if not classes:
        return None
    if len(classes) == 1 or any(_like_split(name) for name in classes):  # or are these no classes at all?
        if (named := filenames.look(tree)) is not None:
            return named
        if all(_like_split(name) for name in classes):
            return None
    if len(classes) == 1:
        raise DataError(
            f"{tree.name} holds one class only, {classes[0]!r}. Add a folder of pictures of something else."
        )
    notes = (*tree.notes, *_aside(tree, stray), *_deeper(parts, bool(splits)))
    return Layout("folders", tree.root, _why(classes, entries), (*entries, *tree.refused), notes)


def wrapping(parts: Parts) -> int:
    """Count the folders that wrap everything: a lone folder around the class folders is no class."""
    depth = 0
    while (
        parts and all(len(part) > depth + 2 for part in parts) and len({part[depth] for part in parts}) == 1
    ):
        if split_of(parts[0][depth]):
            break
        depth += 1
    return depth


def _splits(parts: Parts) -> dict[str, str]:
    """Return top folder → split; empty where the top folders are classes, even if one is called "train".

    Folders are splits where one of them is the train split and most pictures in them lie a folder deeper.
    """
    named = {part[0]: split for part in parts if len(part) > 1 and (split := split_of(part[0]))}
    inside = [part for part in parts if part[0] in named]
    deeper = sum(len(part) > 2 for part in inside)
    return named if "train" in named.values() and 2 * deeper > len(inside) else {}


def _like_split(name: str) -> bool:
    """Tell a folder called train, test1, val_images: rarely a class."""
    return split_of(re.split(r"[\d_-]", name)[0]) is not None


def _aside(tree: Tree, stray: list[str]) -> list[str]:
    notes = []
    if others := len(tree.files) - len(tree.pictures):
        notes.append(f"{count(others, 'file that is no picture', 'files that are no pictures')} left aside.")
    if stray:
        notes.append(f"{count(len(stray), 'picture')} outside any class folder left aside: {some(stray)}.")
    return notes


def _deeper(parts: Parts, has_splits: bool) -> list[str]:
    deep = sum(len(part) > 2 + has_splits for part in parts)
    return (
        [f"{count(deep, 'picture')} in folders inside class folders: taken as their class."] if deep else []
    )


def _why(classes: list[str], entries: list[Entry]) -> str:
    shown = some(classes)
    splits = [split for split in ("train", "val", "test") if any(entry.split == split for entry in entries)]
    if not splits:
        return f"class folders, because {count(len(classes), 'folder')} hold the pictures: {shown}."
    return (
        f"class folders with a split of their own ({', '.join(splits)}), because the folders above the "
        f"{count(len(classes), 'class', 'classes')} ({shown}) are called so."
    )
