"""Captions in other files than tables: COCO's and Karpathy's JSON, Flickr's lists, a text beside each image."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vitrail.data.captions import are_captions, join_captions
from vitrail.data.image_finder import FREELY, Finder, folder_of
from vitrail.data.labels import IMAGES, count, shorten, split_in, split_of
from vitrail.data.layouts.annotations import FEW
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.caption_rows import merge_captions
from vitrail.data.table_files import code_of
from vitrail.data.truth import Truth

_BESIDE = (".txt", ".caption")
_LISTS = (".json", ".txt", ".token", ".csv", ".tsv")
_MOST = 0.5
"""The share of the images beside which a text must stand."""
_HEAD = 4000  # bytes that show whether a file is such a list
_MARKS = "|".join(suffix.removeprefix(".") for suffix in sorted(IMAGES, key=len, reverse=True))
_NUMBERED = re.compile(rf"(?P<image>[^\t]+\.(?:{_MARKS}))#\d+\t(?P<caption>.*)", re.IGNORECASE)
"""A line of Flickr's lists: 1000092795.jpg#0, a tab and a caption."""


class _Captioned(NamedTuple):
    """One caption of an image, with the name that the file uses, and the split that it states."""

    name: str
    caption: str
    split: str = ""


def look(tree: Tree) -> Layout | None:
    """Return images with captions from lists, else from a text file beside each image; None if there are none.

    Raises:
        DataError: a file that the user named has no captions of images that are here.
    """
    if tree.wanted not in {"", "caption"}:
        return None
    return _from_lists(tree) or _from_texts(tree)


def asked(tree: Tree) -> bool:
    """Return whether the file named by the user, with --labels, is a list of captions and no table."""
    name = tree.options.labels
    return bool(name) and tree.wanted in {"", "caption"} and bool(_captions_of(tree, name))


# Lists


def _from_lists(tree: Tree) -> Layout | None:
    around = (
        replace(Tree.look(tree.root, tree.options), notes=tree.notes, wanted=tree.wanted)
        if tree.table
        else tree
    )
    find = Finder({name: around.files[name] for name in around.pictures}, around.root)
    entries: list[Entry] = []
    used = []
    for name in _lists(tree):
        rows = [(one, find(one.name, folder_of(name), one.split)) for one in _captions_of(tree, name)]
        if not any(not trouble for _, (_, trouble) in rows):
            continue
        used.append(name)
        word = "" if tree.options.splits == "none" else split_in(name)
        entries += [
            Entry(path, path, join_captions([one.caption]), one.split or word, trouble=trouble)
            for one, (path, trouble) in rows
        ]
    if not used:
        return None
    merged, _ = merge_captions(entries)
    right = sum(not entry.trouble for entry in merged)
    verb = "give" if len(used) > 1 else "gives"
    why = f"images with captions, because {shorten(used)} {verb} captions of {count(right, 'image')}."
    notes = [f"{count(find.freely, 'name')} found {FREELY}."] if find.freely else []
    refused = () if tree.table else tree.refused
    found = (*merged, *refused)
    return Layout(
        "captions", tree.root, why, found, tuple(notes), Truth("caption"), tables=tuple(used),
        truths=frozenset(used),
    )  # fmt: skip


def _lists(tree: Tree) -> list[str]:
    """Return the files that may list captions: the one that the user named, or few of a kind."""
    if named := tree.options.labels or tree.table:
        return [named]
    found = []
    for suffix in _LISTS:
        names = [name for name in tree.files if name.lower().endswith(suffix)]
        found += names if len(names) < FEW else []
    return found


def _captions_of(tree: Tree, name: str) -> list[_Captioned]:
    """Return the captions in a file; none for other files."""
    if not name.lower().endswith(_LISTS) or not (name in tree.files or Path(name).is_file()):
        return []
    data = tree.read(name) if name in tree.files else Path(name).read_bytes()
    if not name.lower().endswith(".json"):
        return list(_numbered(data))
    captioned = b'"caption"' in data or b'"sentences"' in data
    if not captioned and (b'"annotations"' in data or not data.lstrip().startswith(b"{")):
        return []
    try:
        content = json.loads(data)
    except ValueError:
        return []
    for reader in _READERS:
        try:
            found = list(reader(content))
        except (KeyError, TypeError, AttributeError, ValueError):
            continue
        if found:
            return found
    return []


def _numbered(data: bytes) -> Iterator[_Captioned]:
    """Read lines of an image with the number of its caption, a tab and the caption."""
    head = data[:_HEAD].decode("utf-8", errors="replace").splitlines()
    if not any(_NUMBERED.fullmatch(line) for line in head):
        return
    for line in data.decode(code_of(data), errors="replace").splitlines():
        if match := _NUMBERED.fullmatch(line):
            yield _Captioned(match["image"], match["caption"])


def _coco(content: Any) -> Iterator[_Captioned]:
    """Read COCO's images and annotations whose annotations are captions."""
    names = {one["id"]: str(one["file_name"]) for one in content["images"]}
    for one in content["annotations"]:
        if one["image_id"] in names:
            yield _Captioned(names[one["image_id"]], str(one["caption"]))


def _karpathy(content: Any) -> Iterator[_Captioned]:
    """Read Karpathy's lists: images with sentences and a split."""
    for image in content["images"]:
        split = split_of("train" if image.get("split") == "restval" else str(image.get("split", ""))) or ""
        folder = f"{image['filepath']}/" if image.get("filepath") else ""
        for one in image["sentences"]:
            yield _Captioned(f"{folder}{image['filename']}", str(one["raw"]), split)


def _by_name(content: Any) -> Iterator[_Captioned]:
    """Read a mapping of an image to its captions, or to one that is no class."""
    texts = {name: value if isinstance(value, list) else [value] for name, value in content.items()}
    every = [one for own in texts.values() for one in own]
    if not every or not all(isinstance(one, str) for one in every) or not are_captions(every, named=False):
        return
    for name, own in texts.items():
        for one in own:
            yield _Captioned(name, one)


_READERS: tuple[Callable[[Any], Iterator[_Captioned]], ...] = (_coco, _karpathy, _by_name)


# A text beside each image


def _from_texts(tree: Tree) -> Layout | None:
    if tree.table or tree.options.labels:
        return None
    beside = _texts_beside(tree)
    if not beside or len(beside) < _MOST * len(tree.pictures):
        return None
    first = list(beside.values())[:: max(1, len(beside) // 100)]
    if not are_captions([_lines(tree, text)[0] for text in first], named=tree.wanted == "caption"):
        return None
    entries, several = [], 0
    for name, text in beside.items():
        lines = _lines(tree, text)
        several += len(lines) > 1
        entries.append(tree.entry(name, join_captions(lines), _split(tree, name)))
    rest = [name for name in tree.pictures if name not in beside]
    notes = [f"{count(len(rest), 'image')} without a text left aside: {shorten(rest)}."] if rest else []
    notes += [f"{count(several, 'text')} of several lines: each line is a caption."] if several else []
    example = next(iter(beside.values()))
    why = f"images with captions, because a text stands beside {count(len(beside), 'image')}, such as {example}."
    truths = frozenset(beside.values())
    found = (*entries, *tree.refused)
    return Layout("captions", tree.root, why, found, tuple(notes), Truth("caption"), truths=truths)


def _texts_beside(tree: Tree) -> dict[str, str]:
    """Return image → the text file with its stem: in the same folder, or the only one that is called so."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    texts = {str(PurePosixPath(name).with_suffix("")): name for name in tree.files if name.endswith(_BESIDE)}
    for stem, name in texts.items():
        by_stem[stem.rpartition("/")[2]].append(name)
    if not texts:
        return {}
    stems = [PurePosixPath(name).stem for name in tree.pictures]
    numbers = Counter(stems)
    found = {}
    for name, stem in zip(tree.pictures, stems, strict=True):
        text = texts.get(str(PurePosixPath(name).with_suffix("")))
        others = by_stem.get(stem, [])
        if text is None and len(others) == 1 and numbers[stem] == 1:
            text = others[0]
        if text is not None:
            found[name] = text
    return found


def _lines(tree: Tree, name: str) -> Sequence[str]:
    """Return the lines of a text file that are not empty, or one that is."""
    data = tree.read(name)
    return [
        line.strip() for line in data.decode(code_of(data), errors="replace").splitlines() if line.strip()
    ] or [""]


def _split(tree: Tree, name: str) -> str:
    """Return the split of the outermost folder that is called like one."""
    splits = tree.options.splits_among(dict.fromkeys(name.split("/")[:-1]))
    return next(iter(splits.values()), "")
