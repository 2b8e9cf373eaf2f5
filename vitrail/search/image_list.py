"""The images of a source without their labels: in sub-folders, in archives, and inside tables, volumes and arrays."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import DataError, MissingExtraError, UndecidedError
from vitrail.data import archives
from vitrail.data.labels import count, natural, shorten
from vitrail.data.layouts import Entry, sniff
from vitrail.data.layouts.base import Layout, Tree
from vitrail.data.parts import is_window
from vitrail.data.walk_files import hidden_note, is_hidden, is_image_at

_CROP = re.compile(r"(.+)!\d+,\d+,\d+,\d+")


class ImageList(NamedTuple):
    """The images of a source, not opened yet: the source, where they lie, and notes on what was left aside."""

    source: str
    root: Path
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def list_images(source: str | Path) -> ImageList:
    """Return every image of a folder, an archive, a table or a raster; a cut of an image counts as the whole image.

    Masks of a known layout are no images. An image that cannot be opened has its `trouble`.

    Raises:
        DataError: the source is missing, cannot be opened, or has no images.
    """
    tree, name = Tree.look(source), os.path.realpath(source)
    layout, refused = _layout(source)
    if layout is not None and layout.raster is not None:
        windows = tuple(one._replace(target="") for one in layout.entries())
        return ImageList(name, layout.root, windows, layout.notes)
    packed, bad, notes = _in_archives(tree)
    masks = layout.truths if layout is not None else frozenset()
    paths = [tree.files[name] for name in tree.pictures if name not in masks]
    if tree.table and layout is not None:
        paths = [_whole(one.path) for one in layout.entries() if not one.trouble]
    inside = _inside_files(layout.entries() if layout is not None else ())
    plain = [Entry(path, path, "") for path in dict.fromkeys([*paths, *packed]) if path not in inside]
    entries = (*plain, *(one for some in inside.values() for one in some), *tree.refused, *bad)
    if not any(not one.trouble for one in entries):
        raise refused or DataError(
            f"{tree.name} holds no images that can be opened. Name a folder with images in it."
        )
    aside = [f"{count(len(masks), 'mask')} of objects left aside: {shorten(sorted(masks))}."] if masks else []
    return ImageList(name, tree.root, _ordered(entries), (*tree.notes, *notes, *aside))


def _layout(source: str | Path) -> tuple[Layout | None, DataError | None]:
    """Return how the data set would be read, or None with the reason: images without labels have no layout."""
    try:
        return sniff(source), None
    except UndecidedError:  # two readings of the labels, which do not matter here
        return None, None
    except DataError as error:
        return None, error


def _in_archives(tree: Tree) -> tuple[list[str], list[Entry], list[str]]:
    """Return the images in archives that lie beside images, those that cannot be read, and notes."""
    found: list[str] = []
    bad: list[Entry] = []
    notes: list[str] = []
    for path in dict.fromkeys(path for path in tree.files.values() if "!" not in path):
        if not archives.is_archive(path):
            continue
        try:
            members = archives.members(tree.root / path)
        except (DataError, MissingExtraError) as error:
            notes.append(str(error))
            continue
        hidden = [f"{path}!{one.name}" for one in members if is_hidden(one.name)]
        notes += hidden_note(hidden)
        for one in members:
            name = f"{path}!{one.name}"
            if one.trouble and not is_hidden(one.name):
                bad.append(Entry(name, name, "", trouble=one.trouble))
            elif not is_hidden(one.name) and is_image_at(tree.root, name):
                found.append(name)
    return found, bad, notes


def _inside_files(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the images inside files that are no single images (rows of tables, pages, slices), by file."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for one in entries:
        outer = one.path.partition("!")[0]
        cut = is_window(one.part) or _CROP.fullmatch(one.path)
        packed = "!" in one.path and not archives.is_archive(outer)
        if one.trouble or cut or not (one.part or packed):
            continue
        found[one.path if one.part else outer].append(one._replace(target="", split="", group=""))
    return found


def _whole(path: str) -> str:
    """Return the path of the image that a path cuts out of, or the path itself."""
    cut = _CROP.fullmatch(path)
    return cut[1] if cut else path


def _ordered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries in natural order, each id once."""
    return tuple(sorted({one.id: one for one in entries}.values(), key=lambda one: natural(one.id)))
