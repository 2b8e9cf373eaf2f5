"""An .npz file with images and labels: images/labels, x/y, x_train/y_train/x_test/y_test and their kin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.containers import npz
from vitrail.data.labels import count, join_labels, split_of
from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of

_IMAGES = ("images", "x", "image", "data", "imgs")
_LABELS = ("labels", "y", "label", "target", "targets")


def look(tree: Tree) -> Layout | None:
    """Pair arrays of images with arrays of labels by their names; None if the source is not an .npz file.

    Raises:
        DataError: there is no such pair, shapes do not match, or arrays are not images.
    """
    files = [path for name, path in tree.files.items() if name.endswith(".npz")]
    if len(files) != 1 or tree.pictures:
        return None
    arrays = npz(tree.root / files[0])
    pairs = [
        (name, partner, split)
        for name in arrays
        if (found := _partner(name, arrays))
        for partner, split in [found]
    ]
    if not pairs:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"{tree.name} holds {shapes}. Call the images images and their labels labels.")
    names = arrays["classes"].astype(str).tolist() if "classes" in arrays else []
    entries = [entry for pair in pairs for entry in _entries(files[0], arrays, pair, names)]
    why = f"arrays, because {count(len(pairs), 'pair')} of images and labels are in it: " + ", ".join(
        f"{image} {arrays[image].shape} with {label}" for image, label, _ in pairs
    )
    return Layout("npz", tree.root, why + ".", tuple(entries), truth=truth_of(entries))


def _partner(name: str, arrays: dict[str, NDArray[Any]]) -> tuple[str, str] | None:
    """Return the name of the labels and the split of an array of images, or None for other arrays."""
    words = name.lower().split("_")
    split = next((found for word in words if (found := split_of(word))), "")
    plain = "_".join(word for word in words if not split_of(word))
    if plain not in _IMAGES:
        return None
    for other in arrays:
        rest = [word for word in other.lower().split("_") if not split_of(word)]
        same = next((found for word in other.lower().split("_") if (found := split_of(word))), "") == split
        if same and "_".join(rest) in _LABELS:
            return other, split
    return None


def _entries(
    file: str, arrays: dict[str, NDArray[Any]], pair: tuple[str, str, str], names: list[str]
) -> list[Entry]:
    images, labels = arrays[pair[0]], arrays[pair[1]]
    if images.ndim not in (3, 4) or len(images) != len(labels):
        raise DataError(
            f"{Path(file).name}: {pair[0]} {images.shape} and {pair[1]} {labels.shape} do not fit. "
            "Images are (number, height, width[, channels]), labels one an image."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]

    def named(index: Any) -> str:
        return names[int(index)] if names else str(index)

    entries = []
    for i, known in enumerate(labels):
        cell = (
            join_labels(named(j) for j in np.flatnonzero(known))
            if labels.ndim == 2
            else join_labels([named(known)])
        )
        path = f"{file}!{pair[0]}!{i}"
        entries.append(Entry(path, path, cell, pair[2]))
    return entries
