"""A class for every pixel: how a mask stands in a row, how it is read and moved with its image. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import parts
from vitrail.data.findings import Finding
from vitrail.data.layouts import mask_files
from vitrail.data.manifest import Row
from vitrail.data.source import read as read_bytes
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from vitrail.data.look import Facts

Mask = NDArray[np.uint8]

WEIGHT = 5.0
"""The most that a rare class weighs in the loss."""


class SegmentTargets(Targets[Mask]):
    """The class of each pixel of the original, `VOID` where none counts: uint8 (height, width).

    A row names its mask as vitrail/data/layouts/mask_files.py reads it: a file; {"classes": {name: file}}, one file a
    class; or {"size": …, "objects": […]}, outlines to be painted.
    """

    VOID: ClassVar[int] = mask_files.VOID

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header as the layout states it; DataError where the truths are no masks, or name no classes."""
        if truth.kind != "mask":
            raise DataError(
                f"These are truths of the kind {truth.kind!r}, and no masks. Name a task that learns them."
            )
        if not 2 <= len(truth.names) <= mask_files.MOST:
            raise DataError(
                f"Segmentation takes 2 to {mask_files.MOST} classes, and the masks name {len(truth.names)}. "
                "Name them in classes.txt beside the folders."
            )
        return truth

    def read(self, row: Row, root: Path) -> Mask:
        """Return the mask of a row; DataError where it cannot be read, or holds what stands for no class."""
        mask = self._whole(row, root)
        if parts.is_window(row.part):
            left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
            mask = mask[top:bottom, left:right]
        return mask

    def _whole(self, row: Row, root: Path) -> Mask:
        if not row.target:
            raise DataError(f"{row.id} has no mask. Add one, or leave the image out.")
        if not row.target.startswith("{"):
            return self._file(row.target, root)
        stated: dict[str, Any] = json.loads(row.target)
        if "classes" in stated:
            return self._one_file_a_class(stated["classes"], root)
        places = {name: i for i, name in enumerate(self.truth.names)}
        height, width = stated["size"]
        return mask_files.paint(stated["objects"], (height, width), places, row.id)

    def _file(self, path: str, root: Path) -> Mask:
        return mask_files.decode_mask(mask_files.read_raw(read_bytes(root, path), path), self.truth, path)

    def _one_file_a_class(self, files: dict[str, str], root: Path) -> Mask:
        mask: Mask | None = None
        for place, name in enumerate(self.truth.names):
            if name not in files:
                continue
            raw = mask_files.read_raw(read_bytes(root, files[name]), files[name]).array
            there = raw.any(-1) if raw.ndim == 3 else raw != 0
            mask = np.zeros(there.shape, np.uint8) if mask is None else mask
            if mask.shape != there.shape:
                raise DataError(f"{files[name]} has another size than the other masks of its image. Mend it.")
            mask[there] = place
        if mask is None:
            raise DataError(f"None of {', '.join(files)} is a class of this set. Mend the table of classes.")
        return mask

    def transform(self, target: Mask, view: Any) -> Mask:
        """Return the mask as a view of its image shows it; where no image is, it is void."""
        moved: Mask = view.mask(target, self.VOID)
        return moved

    def words(self, row: Row) -> str:
        """Return the name of the mask."""
        return "a mask" if row.target.startswith("{") else row.target

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two masks are equal."""
        return one.target == other.target or np.array_equal(self.read(one, root), self.read(other, root))

    def areas(self, rows: Sequence[Row], root: Path) -> NDArray[np.int64]:
        """Return the pixels of each class: (rows, k)."""
        counts = [np.bincount(self.read(row, root).ravel(), minlength=256) for row in rows]
        return np.array(counts, np.int64).reshape(len(rows), 256)[:, : len(self.truth.names)]

    # Findings

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Keep out an image whose mask cannot be read, or has another size."""
        size = self.read(row, root).shape
        if size != facts.size:
            text = "a mask of another size than its image"
            yield Finding("mask size", text, (row.id,), grave=True, out=True)


def frequency_weights(areas: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what each class weighs by the pixels of each image, (n, k): √(median frequency / frequency), at most 5.

    The frequency of a class is its share of the pixels of the images that show it (Eigen and Fergus 2015,
    arXiv:1411.4734, §4.3.2); the root and the cap keep a class of a few pixels from ruling the loss.
    """
    of_images = areas.sum(1, keepdims=True)
    seen = (areas > 0) * of_images
    share = areas.sum(0) / np.maximum(seen.sum(0), 1)
    there = share > 0
    weights = np.ones(areas.shape[1], np.float32)
    if there.any():
        weights[there] = np.sqrt(np.median(share[there]) / share[there])
    return np.minimum(weights, WEIGHT).astype(np.float32)
