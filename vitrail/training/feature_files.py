"""Files of cached vectors: tensors by name, and the content hash of the image of each row in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vitrail.core.cache import keep
from vitrail.tasks.probe import Vectors

_BROKEN = (FileNotFoundError, SafetensorError, OSError, KeyError, ValueError)


def hashes_in(path: Path) -> list[str]:
    """Return the hashes of the images in a file, in order of its rows; none if it is missing or broken."""
    try:
        with safe_open(path, framework="np") as handle:
            found: list[str] = json.loads(handle.metadata()["hashes"])
            return found
    except _BROKEN:
        return []


def read_all(path: Path, names: Sequence[str]) -> dict[str, tuple[Vectors, ...]]:
    """Return the vectors of every image in a file, one for each name, by hash; none if it is missing or broken."""
    try:
        with safe_open(path, framework="np") as handle:
            hashes = json.loads(handle.metadata()["hashes"])
            outputs = [handle.get_tensor(name) for name in names]
            return dict(zip(hashes, zip(*outputs, strict=True), strict=True))
    except _BROKEN:
        return {}  # features in a broken cache are computed again


def read_matrix(path: Path, name: str, hashes: Sequence[str]) -> Vectors | None:
    """Return the vectors called `name` of some images, (n, …), in this order; None if any of them is not known."""
    places = {content: place for place, content in enumerate(hashes_in(path))}
    wanted = [places.get(content, -1) for content in hashes]
    if not wanted or min(wanted) < 0:
        return None
    try:
        with safe_open(path, framework="np") as handle:
            whole: Vectors = handle.get_tensor(name)
    except _BROKEN:
        return None
    if len(whole) != len(places):
        return None
    return whole if wanted == list(range(len(whole))) else whole[np.array(wanted)]


def write_all(path: Path, names: Sequence[str], known: Mapping[str, tuple[Vectors, ...]]) -> None:
    """Write the vectors of images by hash, if the cache is writable."""
    outputs = zip(*known.values(), strict=True)
    tensors = {name: np.stack(output) for name, output in zip(names, outputs, strict=True)}
    keep(path, lambda temporary: save_file(tensors, temporary, metadata={"hashes": json.dumps(list(known))}))
