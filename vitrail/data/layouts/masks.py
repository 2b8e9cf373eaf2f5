"""Pictures with masks: images/ beside masks/, mask/, annotations/ or SegmentationClass/, paired by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import PurePosixPath

from vitrail.core.errors import DataError
from vitrail.data.layouts import mask_files
from vitrail.data.layouts.base import Layout, Tree
from vitrail.data.layouts.boxes import listed_splits
from vitrail.data.names import count, some, split_of
from vitrail.data.source import read
from vitrail.data.truth import Truth

_IMAGES = frozenset(("images", "image", "JPEGImages"))
_MASKS = ("masks", "mask", "annotations", "SegmentationClass")
_ENDINGS = ("", "_mask", "-mask", "_seg", "_gt", "_label")
"""What stands behind a picture's name in that of its mask."""

Folder = tuple[str, ...]


def look(tree: Tree) -> Layout | None:
    """Pair pictures with the masks of their names; None where no folder of masks lies beside one of pictures."""
    pairs = _folders(tree)
    if not pairs:
        return None
    masks = {_stem(name): name for name in tree.pictures if _under(name, pairs.values())}
    listed = listed_splits(tree)
    entries, without, aside = [], [], []
    for name in tree.pictures:
        image = _under(name, pairs)
        if image is None:
            aside += [] if _under(name, pairs.values()) else [name]
            continue
        mask = _mask_of(name, image, pairs[image], masks)
        split = next((s for part in name.split("/") if (s := split_of(part))), "")
        split = split or listed.get(PurePosixPath(name).stem, "")
        entries.append(tree.entry(name, tree.files[mask] if mask else "", split))
        without += [] if mask else [name]
    shown = [f"{'/'.join(image)} and {'/'.join(mask)}" for image, mask in pairs.items()]
    pictures = count(len(entries), "picture")
    why = f"pictures with masks, because the folders {some(shown)} stand side by side: {pictures}."
    notes: list[str] = []
    if without:
        notes.append(f"{count(len(without), 'picture')} without a mask of its name: {some(without)}.")
    if aside:
        notes.append(f"{count(len(aside), 'picture')} outside these folders left aside: {some(aside)}.")
    truth, told = _truth(tree, [entry.target for entry in entries if entry.target])
    found = (*entries, *tree.refused)
    return Layout("masks", tree.root, why, found, (*notes, *told), truth)


def _truth(tree: Tree, masks: Sequence[str]) -> tuple[Truth, list[str]]:
    """Return the header: the names of classes.txt, one a line, and what the masks themselves tell."""
    table = next((name for name in tree.files if name.rpartition("/")[2] == "classes.txt"), None)
    lines = tree.read(table).decode("utf-8", "replace").splitlines() if table else []
    named = tuple(line.strip() for line in lines if line.strip())

    def raw(path: str) -> mask_files.RawMask:
        return mask_files.read_raw(read(tree.root, path), path)

    try:
        return mask_files.survey((partial(raw, path) for path in masks), named)
    except DataError as error:
        raise DataError(f"{tree.name} {error}") from error


def _folders(tree: Tree) -> dict[Folder, Folder]:
    """Return folder of pictures → folder of masks, in natural order."""
    parts = [tuple(name.split("/")) for name in tree.pictures]
    folders = dict.fromkeys(part[:end] for part in parts for end in range(1, len(part)))
    pairs = {}
    for folder in folders:
        beside = [(*folder[:-1], name) for name in _MASKS if (*folder[:-1], name) in folders]
        if folder[-1] in _IMAGES and beside:
            pairs[folder] = beside[0]
    return pairs


def _under(name: str, folders: Iterable[Folder]) -> Folder | None:
    parts = tuple(name.split("/"))
    return next((folder for folder in folders if parts[: len(folder)] == folder), None)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _mask_of(name: str, image: Folder, mask: Folder, masks: dict[str, str]) -> str | None:
    inner = _stem(name).split("/")[len(image) :]
    return next(
        (masks[beside] for end in _ENDINGS if (beside := "/".join((*mask, *inner)) + end) in masks), None
    )
