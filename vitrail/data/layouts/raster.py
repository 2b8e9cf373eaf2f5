"""Rasters with labels on their grid: windows around labelled pixels, or tiles with a class in each pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError, UnknownNameError
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.base import CLASS, Entry, Layout, Tree
from vitrail.data.layouts.mask_files import MOST as MOST_CLASSES
from vitrail.data.layouts.mask_files import to_runs
from vitrail.data.manifest import dump_target
from vitrail.data.parts import raster_part
from vitrail.data.rasters.blocks import WINDOWS, block_side
from vitrail.data.rasters.facts import RasterFacts
from vitrail.data.rasters.ground_areas import pixel_side
from vitrail.data.rasters.label_layers import VECTORS
from vitrail.data.rasters.labels import LabelMap, covered, read_labels
from vitrail.data.rasters.safe import bands_of, is_safe
from vitrail.data.rasters.samples import Pixels, chosen
from vitrail.data.rasters.sources import JOIN, SUFFIXES
from vitrail.data.rasters.stack import open_stack
from vitrail.data.truth import Truth

WINDOW, TILE = 8, 64
"""Default side in pixels of the window around a labelled pixel, and of a tile for segmentation."""

_NAMES = frozenset((
    "label", "labels", "class", "classes", "truth", "groundtruth", "gt", "mask", "masks", "training", "reference",
    "annotation", "annotations",
))  # fmt: skip
_SPLITS = ("", "train", "val", "test")
_MANY = 200  # more rasters in a folder are images
_WORDS = re.compile(r"[\W_\d]+")


class _Source(NamedTuple):
    """The path of a stack, its file of labels with the column of their classes, and the names of the files."""

    path: str
    labels: Path
    column: str
    used: tuple[str, ...]


def asked(tree: Tree) -> bool:
    """Return whether the labels that the user names lie on a raster: the source is one, or the labels are a layer."""
    if not tree.options.labels:
        return False
    suffix = _named(tree)[0].suffix.lower()
    return bool(tree.stack) or suffix in VECTORS[:-1] or (suffix in SUFFIXES and bool(_rasters(tree)))


def look(tree: Tree) -> Layout | None:
    """Return the labelled windows or tiles of a raster; None if the source has none, or no labels on it.

    Raises:
        DataError: the raster has no labels, they lie elsewhere, or a file cannot be read.
        MissingExtraError: rasterio is not installed.
    """
    source = _source(tree)
    if source is None:
        return None
    stack = open_stack(tree.root, source.path)
    if not tree.stack and not tree.options.labels and not stack.grid.located:
        return None  # photographs with masks
    labels = read_labels(source.labels, source.column, stack.grid, tree.options)
    tiles = tree.wanted == "mask"
    window = tree.options.window or (TILE if tiles else WINDOW)
    block = tree.options.block or block_side(labels.classes, window, 1 if tiles else WINDOWS)
    entries, truth, said = (
        _tiled(source.path, labels, window, block) if tiles else _windows(source.path, labels, window, block)
    )
    name, own = source.labels.name, shorten(one.rpartition("/")[2] for one in source.path.split(JOIN))
    what = count(len(entries), "tile", "tiles") if tiles else count(len(entries), "window")
    why = f"a raster with labels, because {name} gives classes to places of {own}: {what} of {window} x {window} px."
    notes = (*stack.notes, *labels.notes, *said, _of_blocks(entries, block, tree), *_aside(tree, source))
    facts = RasterFacts(source.path, stack.bands, stack.grid, window, pixel_side(stack.grid), covered(labels))
    return Layout(
        "raster", tree.root, why, tuple(entries), notes, truth, truths=frozenset(source.used), sure=True, raster=facts
    )  # fmt: skip


def _named(tree: Tree) -> tuple[Path, str]:
    """Return the file of labels that the user names, and the column."""
    wanted = tree.options.labels
    for text, column in ((wanted, ""), wanted.rpartition(":")[::2]):
        if text in tree.files:
            return tree.root / tree.files[text], column
        if text and Path(text).is_file():
            return Path(text), column
    return Path(wanted), ""


def _rasters(tree: Tree) -> list[str]:
    return [name for name in tree.files if name.lower().endswith(SUFFIXES) and "!" not in tree.files[name]]


def _source(tree: Tree) -> _Source | None:
    """Return the stack and its labels, or None if the source is no raster with labels."""
    if tree.stack:
        return _of_stack(tree)
    rasters = _rasters(tree)
    if tree.table or not 0 < len(rasters) <= _MANY:
        return None
    labels, column = _named(tree) if tree.options.labels else (_own_labels(tree, rasters), "")
    if labels is None:
        if is_safe(rasters):
            raise _without_labels(tree)
        return None
    if not labels.is_file():
        raise _missing(tree, labels)
    bands = [name for name in bands_of(rasters) if (tree.root / name).resolve() != labels.resolve()]
    if not bands or (not tree.options.labels and len(tree.pictures) > len(rasters)):
        return None
    if not tree.options.labels and tree.options.layout == "auto" and not _located(tree.root, bands[0]):
        return None
    return _Source(JOIN.join(bands), labels, column, tuple(rasters))


def _of_stack(tree: Tree) -> _Source:
    if not tree.options.labels:
        raise _without_labels(tree)
    labels, column = _named(tree)
    if not labels.is_file():
        raise _missing(tree, labels)
    return _Source(tree.stack, labels, column, tuple(tree.files))


def _missing(tree: Tree, labels: Path) -> UnknownNameError:
    near = [one for one in tree.files if one.lower().endswith(VECTORS)]
    return UnknownNameError("file of labels", str(labels), near, "Name a file that is there: --labels FILE")


def _without_labels(tree: Tree) -> DataError:
    name = shorten(tree.stack.split(JOIN)) if tree.stack else tree.name
    return DataError(
        f"{name} has no labels. Name them: --labels training.gpkg (polygons or points with a column class), or a "
        "raster of classes of the same place. The bands alone are predicted with: vitrail predict MODEL RASTER"
    )


def _own_labels(tree: Tree, rasters: Sequence[str]) -> Path | None:
    """Return the only file in a folder that may be labels of its rasters, or None."""
    layers = [name for name in tree.files if name.lower().endswith(VECTORS[:-1])]
    if not layers:
        layers = [name for name in rasters if _is_label_name(name)] if len(rasters) > 1 else []
    return tree.root / layers[0] if len(layers) == 1 else None


def _is_label_name(name: str) -> bool:
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return any(word in _NAMES for word in _WORDS.split(stem.lower()))


def _located(root: Path, name: str) -> bool:
    """Return whether a raster has a place on the Earth; False if it cannot be told."""
    try:
        return open_stack(root, name).grid.located
    except MissingExtraError:
        raise
    except DataError:
        return False


def _windows(path: str, labels: LabelMap, window: int, block: int) -> tuple[list[Entry], Truth, list[str]]:
    """Return an entry for each labelled pixel, at index window // 2 of its window."""
    found = chosen(labels, block)
    half, called = window // 2, path.partition(JOIN)[0]
    splits = _splits_at(labels, found)
    entries = []
    each = zip(found.rows.tolist(), found.cols.tolist(), found.classes.tolist(), splits, strict=True)
    names = [name.replace("|", r"\|") for name in labels.names]
    for row, col, kind, split in each:
        left, top = col - half, row - half
        part = raster_part((left, top, left + window, top + window))
        group = _block(row // block, col // block, split)
        entries.append(Entry(f"{called}/{row},{col}", path, names[kind], split, group, part=part))
    notes = []
    if len(entries) < found.labelled:
        notes.append(
            f"{len(entries):,} of {count(found.labelled, 'labelled pixel')} taken: all of the rarest classes, the "
            "others evenly over classes and blocks."
        )
    return entries, CLASS, notes


def _block(row: int, col: int, split: str) -> str:
    """Return the name of a block; where labels state splits, a block has a part in each of them."""
    return f"block {row},{col}" + f" of {split}" * bool(split)


def _splits_at(labels: LabelMap, found: Pixels) -> list[str]:
    if labels.splits is None:
        return [""] * len(found.rows)
    return [_SPLITS[number] for number in labels.splits[found.rows, found.cols].tolist()]


def _tiled(path: str, labels: LabelMap, side: int, block: int) -> tuple[list[Entry], Truth, list[str]]:
    """Return an entry for each tile with labels; its target holds the classes as run lengths, void without a label."""
    if len(labels.names) > MOST_CLASSES:
        raise DataError(
            f"Segmentation takes {MOST_CLASSES} classes, and there are {len(labels.names)}. Join some."
        )
    height, width = labels.classes.shape
    called = path.partition(JOIN)[0]
    step = max(side, block // side * side)
    entries = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            own = labels.classes[top : top + side, left : left + side]
            if not own.any():
                continue
            target = dump_target(_painted(own, labels.names, side))
            part = raster_part((left, top, left + side, top + side))
            split = _split_of_tile(labels, top, left, side)
            group = _block(top // step, left // step, split)
            entries.append(Entry(f"{called}/{top},{left}", path, target, split, group, part=part))
    covered = "Pixels without a label count in no score and train nothing."
    return entries, Truth("mask", labels.names, labels.colours), [covered]


def _painted(own: NDArray[Any], names: Sequence[str], side: int) -> dict[str, Any]:
    """Return the classes of a tile as objects to paint; the first one, of no class, is void."""
    tile = np.zeros((side, side), own.dtype)
    tile[: own.shape[0], : own.shape[1]] = own
    void = [{"rle": to_runs(tile == 0)}] if (tile == 0).any() else []
    kinds = [{"class": names[i - 1], "rle": to_runs(tile == i)} for i in np.unique(tile[tile > 0]).tolist()]
    return {"size": [side, side], "objects": [*void, *kinds]}


def _split_of_tile(labels: LabelMap, top: int, left: int, side: int) -> str:
    """Return the split that most labelled pixels of a tile have."""
    if labels.splits is None:
        return ""
    own = np.s_[top : top + side, left : left + side]
    tally = np.bincount(labels.splits[own][labels.classes[own] > 0], minlength=len(_SPLITS))
    return _SPLITS[int(tally.argmax())]


def _of_blocks(entries: Sequence[Entry], block: int, tree: Tree) -> str:
    number = count(len({one.group for one in entries}), "block")
    if any(one.split for one in entries):
        return f"{number} of {block} x {block} px hold labels, within the splits that the labels state."
    why = "as asked" if tree.options.block else "--block for others"
    return f"{number} of {block} x {block} px hold labels; a block goes to one split as a whole, {why}."


def _aside(tree: Tree, source: _Source) -> list[str]:
    """Return a note on rasters of a folder whose bands are not taken."""
    taken = {*source.path.split(JOIN)}
    left = [name for name in _rasters(tree) if name not in taken and (tree.root / name) != source.labels]
    return (
        [f"{count(len(left), 'raster')} left aside: {shorten(one.rpartition('/')[2] for one in left)}."]
        if left
        else []
    )
