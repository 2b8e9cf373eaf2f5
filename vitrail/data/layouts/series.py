"""A series of DICOM slices in a folder, with one NIfTI volume of the labels of all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count
from vitrail.data.layouts.base import Entry, Tree
from vitrail.data.layouts.mask_pairs import stems_of_mask
from vitrail.data.medical import DicomPlace, affine_of, is_dicom, place_of, slices

_VOLUMES = (".nii", ".nii.gz")
_ALONG = 0.9
"""Cosine from which on two directions are the same axis."""


def pair(tree: Tree) -> dict[str, list[str]]:
    """Return volume of labels → the slices of the series that it belongs to, by the name of their folder."""
    volumes = [name for name in tree.files if name.lower().endswith(_VOLUMES) and "!" not in tree.files[name]]
    if not volumes:
        return {}
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in tree.pictures:
        by_folder[name.rpartition("/")[0]].append(name)
    series = {
        folder: names
        for folder, names in by_folder.items()
        if len(names) > 1 and is_dicom(tree.read(names[0])[:132])
    }
    ends: dict[str, list[str]] = defaultdict(list)
    for folder in series:
        ends[folder.rpartition("/")[2]].append(folder)
    found = {}
    for name in volumes:
        folder, _, file = name.rpartition("/")
        inside = [one for one in volumes if one.rpartition("/")[0] == folder]
        if folder in series and len(inside) == 1:
            found[name] = series[folder]
            continue
        called = next((ends[stem] for stem in stems_of_mask(file) if stem in ends), [])
        if len(called) == 1:
            found[name] = series[called[0]]
    return found


def entries(tree: Tree, series: Mapping[str, list[str]], split: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the slices in the order of their volume, whose slice of labels is turned as they are."""
    for volume, names in series.items():
        path = tree.files[volume]
        ordered, mirrored, trouble = _ordered(tree, path, names)
        for i, name in enumerate(ordered):
            group = name.rpartition("/")[0]
            target = "" if trouble else f"{path}!raw{mirrored}!{i}"
            yield tree.entry(name, target, split[name], group)._replace(trouble=trouble)


def _ordered(tree: Tree, path: str, names: list[str]) -> tuple[list[str], str, str]:
    """Return the slices as the volume has them, how its slices are mirrored against them, and what is in the way."""
    file = tree.root / path
    if (many := slices(file)) != len(names):
        return names, "", f"is one of {count(len(names), 'slice')}, and its labels {path} have {many}"
    places = {name: place_of(tree.read(name), name) for name in names}
    if any(place.position is None for place in places.values()):
        ordered = sorted(names, key=lambda name: places[name].number)
        return ordered, "", ""
    first = next(iter(places.values()))
    towards = np.cross(first.right, first.down)
    axes = affine_of(file)[:3, :3] * np.array([[-1.0], [-1.0], [1.0]])  # to the left, to the back, upwards
    axes = axes / np.linalg.norm(axes, axis=0)
    turned = [float(axes[:, 0] @ first.right), float(axes[:, 1] @ first.down), float(axes[:, 2] @ towards)]
    if min(map(abs, turned)) < _ALONG:
        return names, "", f"is cut in another direction than its labels {path}. Resample them to the series"
    mirrored = "x" * (turned[0] < 0) + "y" * (turned[1] > 0)
    ordered = sorted(names, key=lambda name: _along(places[name], towards), reverse=turned[2] < 0)
    return ordered, f"-{mirrored}" if mirrored else "", ""


def _along(place: DicomPlace, towards: NDArray[np.float64]) -> float:
    return float(np.asarray(place.position) @ towards)
