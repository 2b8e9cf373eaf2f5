"""Choose labelled pixels of a raster as samples: evenly over classes and blocks, rare classes whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rasters.labels import LabelMap

MOST = 60_000
"""Largest number of labelled pixels that are taken as samples."""


class Pixels(NamedTuple):
    """Chosen pixels in order of rows, their classes (from 0), and how many are labelled."""

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    classes: NDArray[np.intp]
    labelled: int


def chosen(labels: LabelMap, block: int, most: int = MOST) -> Pixels:
    """Return at most `most` labelled pixels: all of rare classes, of the others as many from each block as it holds."""
    width = labels.classes.shape[1]
    flat = np.flatnonzero(labels.classes)
    classes = np.asarray(labels.classes.reshape(-1)[flat]).astype(np.intp) - 1
    total = len(flat)
    if total > most:
        kept = _even(flat, classes, (width, block), most)
        flat, classes = flat[kept], classes[kept]
    rows, cols = np.divmod(flat, width)
    return Pixels(rows, cols, classes, total)


def _even(
    flat: NDArray[Any], classes: NDArray[np.intp], sides: tuple[int, int], most: int
) -> NDArray[np.intp]:
    width, block = sides
    rows, cols = np.divmod(flat, width)
    blocks = rows // block * (width // block + 1) + cols // block
    tally = np.bincount(classes)
    quotas = shared(tally, most)
    kept = []
    for kind in np.flatnonzero(tally):
        own = np.flatnonzero(classes == kind)
        own = own[np.argsort(blocks[own], kind="stable")]
        ends = np.flatnonzero(np.diff(blocks[own])) + 1
        parts = np.split(own, ends)
        takes = shared(np.array([len(part) for part in parts]), int(quotas[kind]))
        kept += [part[_spread(len(part), int(take))] for part, take in zip(parts, takes, strict=True)]
    return np.sort(np.concatenate(kept))


def shared(sizes: NDArray[Any], most: int) -> NDArray[np.intp]:
    """Return how many to take of each of several sets so that `most` are taken in all: small sets whole."""
    takes = np.zeros(len(sizes), np.intp)
    left = most
    for done, i in enumerate(np.argsort(sizes, kind="stable")):
        takes[i] = min(int(sizes[i]), left // (len(sizes) - done))
        left -= int(takes[i])
    return takes


def _spread(number: int, take: int) -> NDArray[np.intp]:
    """Return `take` of `number` indices at even distances."""
    return (np.arange(take) * number // max(take, 1)).astype(np.intp)
