"""Images with masks: files of class values or colours, one file per class or per object, volumes, and outlines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import mask_files, mask_pairs, mask_tables, object_masks, outlines, series
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.layouts.known_palettes import known
from vitrail.data.layouts.mask_header import Header, decide_header
from vitrail.data.layouts.mask_tables import BACKGROUND, FOREGROUND
from vitrail.data.layouts.voc import listed_splits
from vitrail.data.manifest import dump_target
from vitrail.data.medical import affine_of, labels_of, slices
from vitrail.data.open_image import read
from vitrail.data.truth import Truth

_VOLUMES = (".nii", ".nii.gz")


def look(tree: Tree) -> Layout | None:
    """Pair images with masks by their names, or with outlines if requested; otherwise None."""
    if tree.table:
        return None
    if found := series.pair(tree):
        return _of_series(tree, found)
    asked = tree.wanted == "mask" or tree.options.layout == "masks"
    pairs = mask_pairs.pair(_candidates(tree), objects=tree.wanted == "instances")
    painted = outlines.look(tree, boxes=asked)
    if pairs is None or (painted is not None and len(painted.explained) > len(pairs.masks)):
        return painted
    return _of_files(tree, pairs)


def _candidates(tree: Tree) -> list[str]:
    """Return the files that may be images or masks; arrays can only be masks."""

    def may_be(name: str) -> bool:
        low = name.lower()
        return (
            name in tree.shown
            or low.endswith(".npy")
            or (low.endswith(_VOLUMES) and "!" not in tree.files[name])
        )

    return [name for name in tree.files if may_be(name)]


def _of_files(tree: Tree, pairs: mask_pairs.Pairs) -> Layout:
    made = _Maker(tree, pairs)
    header, entries = made.layout()
    shown = [f"{image} and {mask}" for image, mask in pairs.folders.items() if image != mask]
    because = (
        f"the folders {shorten(shown)} stand side by side"
        if shown
        else "names that differ in a mark alone stand side by side"
    )
    kind = f" ({made.kind})" if made.kind else ""
    pictures = sum(not entry.trouble for entry in entries)
    why = f"images with masks{kind}, because {because}: {count(pictures, 'image')}."
    notes = (*header.notes, *_said(pairs))
    found = (*entries, *tree.refused)
    listed = [one.path for one in mask_tables.tables(tree)]
    truths = frozenset((*pairs.files, *pairs.lonely, *pairs.unused, *listed))
    refusal = header.refusal
    return Layout(
        "masks", tree.root, why, found, notes, header.truth, refusal, truths=truths, sure=pairs.sure
    )


def _of_series(tree: Tree, found: Mapping[str, list[str]]) -> Layout:
    """Return the slices of DICOM series, grouped by series, with the NIfTI volumes of their labels."""
    names = [name for own in found.values() for name in own]
    split = _splits(tree, names)
    tables = mask_tables.tables(tree)
    header = header_of(tree, list(found), tables[0] if tables else None)
    entries = tuple(series.entries(tree, found, {name: split(name) for name in names}))
    first = next(iter(found))
    have = "have" if len(found) > 1 else "has"
    why = (
        f"images with masks (slices of series), because {count(len(found), 'volume')} of labels such as {first} "
        f"{have} the name or the folder of a DICOM series: {count(len(entries), 'slice')}."
    )
    truths = frozenset((*found, *(one.path for one in tables)))
    aside = tree.other_notes([*truths])
    left = [name for name in tree.pictures if name not in set(names)]
    notes = (
        [f"{count(len(left), 'image')} of no series with labels left aside: {shorten(left)}."] if left else []
    )
    listed = (*header.notes, *notes, *aside)
    every = (*entries, *tree.refused)
    refusal = header.refusal
    return Layout("masks", tree.root, why, every, listed, header.truth, refusal, truths=truths, sure=True)


def _said(pairs: mask_pairs.Pairs) -> list[str]:
    notes = []
    if pairs.lonely:
        of = "images are" if len(pairs.lonely) > 1 else "image is"
        notes.append(
            f"{count(len(pairs.lonely), 'mask')} whose {of} not here left aside: {shorten(pairs.lonely)}."
        )
    if pairs.unused:
        notes.append(
            f"{count(len(pairs.unused), 'file')} beside the masks that are taken left aside: {shorten(pairs.unused)}."
        )
    if pairs.aside:
        notes.append(
            f"{count(len(pairs.aside), 'file')} beside these images left aside: {shorten(pairs.aside)}."
        )
    return notes


class _Maker:
    """Builds the header and the entries of images with mask files."""

    def __init__(self, tree: Tree, pairs: mask_pairs.Pairs) -> None:
        self.tree, self.pairs = tree, pairs
        self.split = _splits(tree, [*pairs.masks, *pairs.without])
        self.kind = ""
        self.broken: dict[str, str] = {}

    def layout(self) -> tuple[Header, list[Entry]]:
        """Return the header, and an entry for each image, including images without a mask."""
        if any(name.lower().endswith(_VOLUMES) for name in self.pairs.masks):
            return self._volumes()
        tables = mask_tables.tables(self.tree)
        table = tables[0] if tables else None
        if self.pairs.classes:
            header, targets = self._by_class(table)
        elif self.pairs.several:
            header, targets = self._by_object(table)
        else:
            header, targets = self._one_each(table)
        return header, self._entries(targets)

    def _entries(self, targets: Mapping[str, str]) -> list[Entry]:
        left = self._left()
        entries = [
            self.tree.entry(name, targets[name], self.split(name))._replace(trouble=self.broken.get(name, ""))
            for name in self.pairs.masks
        ]
        return [*entries, *(self.tree.entry(name, "", self.split(name)) for name in left)]

    def _left(self) -> list[str]:
        """Return the images without a mask; if lists define the set, only those in the lists."""
        listed = _listed(self.tree)
        if not listed:
            return self.pairs.without
        known = [name for name in self.pairs.without if PurePosixPath(name).stem in listed]
        self.pairs.aside += [name for name in self.pairs.without if name not in set(known)]
        self.pairs.without = known
        return known

    def _one_each(self, table: mask_tables.Table | None) -> tuple[Header, dict[str, str]]:
        own = {picture: masks[""][0] for picture, masks in self.pairs.masks.items()}
        header = header_of(self.tree, list(own.values()), table, self.pairs.words)
        if object_masks.are_objects(self.tree, header):
            return self._objects(object_masks.of_files(self.tree, header, own))
        paths = {picture: self.tree.files[mask] for picture, mask in own.items()}
        if not header.objects:
            return header, paths
        self.kind = "the numbers are those of objects"
        name = header.truth.names[1]
        targets = {picture: dump_target({"classes": {name: path}}) for picture, path in paths.items()}
        return header, targets

    def _objects(self, found: object_masks.ObjectMasks) -> tuple[Header, dict[str, str]]:
        self.kind, self.broken = found.kind, found.broken
        return found.header, found.targets

    def _by_class(self, table: mask_tables.Table | None) -> tuple[Header, dict[str, str]]:
        """Return entries with one file per class; pixels in no file are background."""
        if self.tree.wanted == "instances":
            return self._objects(object_masks.of_many(self.tree, self.pairs.masks))
        self.kind = "one file a class"
        known = [kind for kind in (table.kinds if table else ()) if kind.name in self.pairs.classes]
        names = [kind.name for kind in known] + [
            name for name in self.pairs.classes if name not in {kind.name for kind in known}
        ]
        grounds = [name for name in names if name.lower() in mask_tables.GROUNDS]
        ordered = (*(grounds[:1] or [BACKGROUND]), *(name for name in names if name not in grounds[:1]))
        targets = {
            picture: dump_target(
                {"classes": {name: self.tree.files[own[name][0]] for name in ordered if name in own}}
            )
            for picture, own in self.pairs.masks.items()
        }
        return Header(Truth("mask", ordered), self._overlaps(ordered)), targets

    def _overlaps(self, ordered: Sequence[str]) -> tuple[str, ...]:
        """Return a note on the class of pixels that are in the files of several classes."""
        with ThreadPoolExecutor() as pool:
            own = (
                [self.tree.files[one[name][0]] for name in ordered if name in one]
                for one in self.pairs.masks.values()
            )
            lapping = sum(pool.map(self._overlap, own))
        if not lapping:
            return ()
        return (
            f"The files of several classes cover the same pixels in {count(lapping, 'image')}: there the later class "
            f"wins ({shorten(ordered, 8).replace(', ', ' < ')}). The order is that of classes.txt, else of the names.",
        )

    def _overlap(self, files: Sequence[str]) -> bool:
        """Return whether the files of two classes share a pixel; the check reports files that cannot be read."""
        there: NDArray[np.bool_] | None = None
        for path in files:
            try:
                raw = mask_files.read_raw(read(self.tree.root, path), path).array
            except DataError:
                continue
            own: NDArray[np.bool_] = np.asarray(raw.any(-1) if raw.ndim == 3 else raw != 0)
            if there is not None and there.shape == own.shape and (there & own).any():
                return True
            there = own if there is None or there.shape != own.shape else there | own
        return False

    def _by_object(self, table: mask_tables.Table | None) -> tuple[Header, dict[str, str]]:
        """Return the union of the masks of each image, as one object."""
        self.kind = "one file an object"
        names = [kind.name for kind in (table.kinds if table else ()) if not kind.is_void]
        kind = names[0] if len(names) == 1 else FOREGROUND
        if self.tree.wanted in {"instances", "boxes"}:
            name = kind if kind != FOREGROUND else object_masks.OBJECT
            return self._objects(object_masks.of_many(self.tree, self.pairs.masks, name))
        files = {picture: own[""] for picture, own in self.pairs.masks.items()}
        with ThreadPoolExecutor() as pool:
            found = dict(zip(files, pool.map(partial(self._union, kind), files.values()), strict=True))
        line = f"The masks of an image are of single objects: together they are {kind}, the rest is {BACKGROUND}."
        self.broken = {picture: trouble for picture, (_, trouble) in found.items() if trouble}
        return Header(Truth("mask", (BACKGROUND, kind)), (line,)), {
            one: text for one, (text, _) in found.items()
        }

    def _union(self, kind: str, masks: Sequence[str]) -> tuple[str, str]:
        """Return the target of an image with one mask per object, or the problem with the masks."""
        there: NDArray[np.bool_] | None = None
        for name in masks:
            try:
                raw = mask_files.read_raw(self.tree.read(name), self.tree.files[name]).array
            except DataError as error:
                return "", f"has a mask that cannot be used: {str(error).rstrip('.')}"
            own: NDArray[np.bool_] = np.asarray(raw.any(-1) if raw.ndim == 3 else raw != 0)
            if there is not None and there.shape != own.shape:
                return "", f"has masks of several sizes, such as {name}. Mend them"
            there = own if there is None else there | own
        assert there is not None
        one = {"class": kind, "rle": mask_files.to_runs(there)}
        return dump_target({"size": list(there.shape), "objects": [one]}), ""

    def _volumes(self) -> tuple[Header, list[Entry]]:
        """Return the slices of volumes, each with the slice of its label volume; a volume is one group."""
        self.kind = "slices of volumes"
        own = {picture: masks[""][0] for picture, masks in self.pairs.masks.items()}
        self.pairs.aside += self.pairs.without  # other sequences of the same body
        self.pairs.without = []
        tables = mask_tables.tables(self.tree)
        header = header_of(self.tree, list(own.values()), tables[0] if tables else None, self.pairs.words)
        entries = [entry for picture, mask in own.items() for entry in self._slices(picture, mask)]
        return header, entries

    def _slices(self, picture: str, mask: str) -> list[Entry]:
        tree, path, label = self.tree, self.tree.files[picture], self.tree.files[mask]
        split = self.split(picture)
        if not mask.lower().endswith(_VOLUMES):
            return [
                tree.entry(picture, "", split)._replace(trouble=f"is a volume and its mask {mask} is none")
            ]
        many, masks = slices(tree.root / path), slices(tree.root / label)
        if many != masks:
            trouble = f"has {count(many, 'slice')} and its labels {mask} {count(masks, 'slice')}"
            return [tree.entry(picture, "", split)._replace(trouble=trouble)]
        axes, theirs = (affine_of(tree.root / one)[:3, :3] for one in (path, label))
        if not np.allclose(axes, theirs, atol=1e-2):
            trouble = f"lies otherwise in the body than its labels {mask}: bring both to one grid"
            return [tree.entry(picture, "", split)._replace(trouble=trouble)]
        names = [f"{path}!{i}" for i in range(many)]
        return [Entry(name, name, f"{label}!raw!{i}", split, path) for i, name in enumerate(names)]


def header_of(
    tree: Tree, masks: Sequence[str], table: mask_tables.Table | None = None, words: Iterable[str] = ()
) -> Header:
    """Return the header of masks with one file per image: from a table, a well-known set, or the masks themselves.

    If the meaning of their colours is unknown, it names no class and states why; a custom task may read them.
    """

    def raw(name: str) -> mask_files.RawMask:
        path = tree.files[name]
        if name.lower().endswith(_VOLUMES):
            values = labels_of(tree.root / path)
            return mask_files.RawMask(values.reshape(len(values), -1))
        return mask_files.read_raw(read(tree.root, path), path)

    seen = mask_files.survey(partial(raw, name) for name in masks)
    try:
        return decide_header(table, seen, known(frozenset(words), seen))
    except DataError as error:
        return Header(Truth("mask"), refusal=f"{tree.name} {error}")


def _listed(tree: Tree) -> dict[str, str]:
    """Return the splits in ImageSets, those for segmentation first, by the stem of the image."""
    own = {
        name: path for name, path in tree.files.items() if "/Segmentation/" in name or "ImageSets" not in name
    }
    return listed_splits(replace(tree, files=own)) or listed_splits(tree)


def _splits(tree: Tree, pictures: Iterable[str]) -> Callable[[str], str]:
    """Return the split of an image, from its folders or else from the lists of ImageSets."""
    listed = _listed(tree)
    folders = dict.fromkeys(part for name in pictures for part in name.split("/")[:-1])
    named = tree.options.splits_among(folders)

    def split(name: str) -> str:
        own = next((named[part] for part in name.split("/")[:-1] if part in named), "")
        return own or listed.get(PurePosixPath(name).stem, "")

    return split
