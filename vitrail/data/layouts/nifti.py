"""NIfTI volumes in class folders: every slice is an image, and the slices of a volume stay together."""

from __future__ import annotations

from vitrail.data.labels import count
from vitrail.data.layouts import folders
from vitrail.data.layouts.base import Entry, Layout, Tree
from vitrail.data.medical import slices

_SUFFIXES = (".nii", ".nii.gz")


def look(tree: Tree) -> Layout | None:
    """Read the volumes as class folders and cut them into slices; None where there are no volumes on disk.

    Raises:
        DataError: nibabel is not installed, or a volume is broken.
    """
    volumes = {
        name: path for name, path in tree.files.items() if name.endswith(_SUFFIXES) and "!" not in path
    }
    if not volumes:
        return None
    as_pictures = {name + ".png": path for name, path in volumes.items()}  # the same rules as for image files
    found = folders.look(Tree(tree.name, tree.root, as_pictures, tree.refused, options=tree.options))
    if found is None:
        return None
    entries = [part for entry in found.found for part in _cut(tree, entry)]
    why = f"{count(len(volumes), 'NIfTI volume')} cut into {count(len(entries), 'slice')}, as {found.why}"
    window = (
        "Grey values are shown through cal_min and cal_max of each volume, or its least and greatest value."
    )
    return Layout("volumes", tree.root, why, tuple(entries), (*found.notes, window))


def _cut(tree: Tree, entry: Entry) -> list[Entry]:
    if entry.trouble:
        return [entry]
    names = [f"{entry.path}!{i}" for i in range(slices(tree.root / entry.path))]
    return [Entry(name, name, entry.target, entry.split, entry.path) for name in names]
