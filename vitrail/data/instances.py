"""Objects with masks: true ones, predicted ones, and COCO's run lengths, in which masks are kept. No torch.

Run lengths go column by column; `pycocotools` makes, reads and compares them, so that areas and overlaps are COCO's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.boxes import Boxes, FoundBoxes


class Runs(NamedTuple):
    """One mask as COCO's compressed run lengths: (height, width) of its image, and the counts as text."""

    size: tuple[int, int]
    counts: bytes

    def coco(self) -> dict[str, Any]:
        """Return it as pycocotools takes it."""
        return {"size": list(self.size), "counts": self.counts}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON, as files of COCO hold it."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}


class Instances(NamedTuple):
    """The true objects of one image: `boxes`, and the mask of each, in the same order.

    `masks` are in the pixels of the original. In a view of the image `cover` (n, row, col) uint8 takes their place: the
    share of each cell of `CELL` input pixels that the object covers, 255 for all of it.
    """

    boxes: Boxes
    masks: tuple[Runs, ...]
    cover: NDArray[np.uint8] | None = None


class FoundInstances(NamedTuple):
    """The predicted objects of one image, the highest score first: boxes, and the mask of each in the original."""

    boxes: FoundBoxes
    masks: tuple[Runs, ...]


_SIGNS = 12
"""The most signs of one run length, whose 60 bits fit an integer."""

CELL = 4
"""Input pixels that a cell of a true mask spans in training, in each direction."""


def to_runs(masks: NDArray[np.bool_]) -> tuple[Runs, ...]:
    """Return masks (n, height, width) as run lengths."""
    from pycocotools.mask import encode

    if not len(masks):
        return ()
    stacked = np.asfortranarray(np.moveaxis(np.asarray(masks, np.uint8), 0, -1))
    return tuple(_runs(one) for one in encode(stacked))


def from_runs(masks: Sequence[Runs], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return run lengths as masks (n, height, width); `size` is (height, width), for no mask at all."""
    height, width = masks[0].size if masks else size
    found = np.zeros((len(masks), height, width), np.bool_)
    for place, mask in enumerate(masks):
        found[place] = cut_mask(mask, (0, 0, width, height))
    return found


def cut_mask(mask: Runs, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return the pixels of a mask in (left, top, right, bottom), 1 or 0: (bottom - top, right - left).

    The box is inside the image; only its columns are laid out, so that many small objects of a large image are cheap.
    """
    left, top, right, bottom = box
    height = mask.size[0]
    first, last = left * height, right * height
    ends = np.cumsum(_lengths(mask.counts))
    stops = ends[1::2]
    starts = ends[::2][: len(stops)]
    some = slice(np.searchsorted(stops, first, "right"), np.searchsorted(starts, last))
    bounds = np.stack([starts[some], stops[some]], 1).ravel().clip(first, last)
    lengths = np.diff(bounds, prepend=first, append=last)
    flat = np.repeat((np.arange(len(lengths)) % 2).astype(np.uint8), lengths)
    return flat.reshape(right - left, height).T[top:bottom]


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Runs:
    """Return the union of polygons (x, y, x, y, …) in an image (height, width) as COCO draws them.

    Raises:
        DataError: a polygon has fewer than three corners.
    """
    from pycocotools.mask import frPyObjects, merge

    if not polygons or any(len(one) < 6 or len(one) % 2 for one in polygons):
        raise DataError("A polygon needs three corners or more, each with x and y.")
    return _runs(merge(frPyObjects([[float(n) for n in one] for one in polygons], *size)))


def from_coco(rle: Mapping[str, Any]) -> Runs:
    """Return the run lengths of a COCO file, as numbers or as text.

    Raises:
        DataError: they do not cover their image.
    """
    from pycocotools.mask import frPyObjects

    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    lengths = _lengths(text) if isinstance(text, bytes) else np.asarray(counts, np.int64)
    if lengths.min(initial=0) < 0:
        raise DataError("The run lengths of a mask are broken. Write them again.")
    if lengths.sum() != height * width:
        raise DataError(
            f"These run lengths count {lengths.sum():,} pixels in an image of {width} x {height}. Write them again."
        )
    if isinstance(text, bytes):
        return Runs((height, width), text)
    return _runs(frPyObjects({"size": [height, width], "counts": list(counts)}, height, width))


def mask_areas(masks: Sequence[Runs]) -> NDArray[np.float64]:
    """Return the number of pixels of each mask: (n,)."""
    from pycocotools.mask import area

    # pycocotools keeps the number of masks in a byte, and refuses more.
    parts = [area([one.coco() for one in masks[at : at + 255]]) for at in range(0, len(masks), 255)]
    return np.concatenate([np.zeros(0), *parts])


def boxes_around(masks: Sequence[Runs]) -> NDArray[np.float64]:
    """Return the box around each mask, left, top, right, bottom: (n, 4); zeros for an empty mask."""
    from pycocotools.mask import toBbox

    flat = np.asarray(toBbox([one.coco() for one in masks]) if masks else (), np.float64).reshape(-1, 4)
    return np.concatenate([flat[:, :2], flat[:, :2] + flat[:, 2:]], 1)


def mask_overlaps(
    found: Sequence[Runs], true: Sequence[Runs], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return intersection over union (n, m); for a crowd (m,) the common area is divided by that of the prediction."""
    from pycocotools.mask import iou

    if not found or not true:
        return np.zeros((len(found), len(true)))
    flags = crowd.astype(np.uint8).tolist()
    table: NDArray[np.float64] = iou([one.coco() for one in found], [one.coco() for one in true], flags)
    return np.asarray(table, np.float64)


def runs_at(mask: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> Runs:
    """Return a mask (rows, cols) whose (top, left) pixel is `corner` as run lengths of an image (height, width).

    The image itself is never in memory: only the mask and its runs are.
    """
    from pycocotools.mask import frPyObjects

    top, left = corner
    height, width = size
    framed = np.zeros((mask.shape[0] + 2, mask.shape[1]), np.int8)
    framed[1:-1] = mask
    steps = np.diff(framed, axis=0).T  # (cols, rows + 1): where each column enters and leaves the object
    starts, ends = (np.argwhere(steps == turn) @ (height, 1) + left * height + top for turn in (1, -1))
    inner = np.flatnonzero(starts[1:] > ends[:-1])  # a run that goes on in the next column is one run
    starts = np.concatenate([starts[:1], starts[1:][inner]])
    ends = np.concatenate([ends[:-1][inner], ends[-1:]])
    borders = np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [height * width]])
    return _runs(frPyObjects({"size": [height, width], "counts": np.diff(borders).tolist()}, height, width))


def moved_runs(mask: Runs, corner: tuple[int, int], size: tuple[int, int]) -> Runs:
    """Return a mask of a part of an image as one of the image (height, width); `corner` is (top, left) of the part."""
    return runs_at(from_runs([mask], mask.size)[0], corner, size)


def joined_runs(masks: Sequence[Runs]) -> Runs:
    """Return the union of masks of one image."""
    from pycocotools.mask import merge

    return _runs(merge([one.coco() for one in masks]))


def _lengths(counts: bytes) -> NDArray[np.int64]:
    """Return the lengths of the runs, which alternate and begin outside the object.

    COCO's text has five bits a sign and a sixth for "more follows"; from the fourth run on it holds the difference to
    the run two before. Text of no such form gives lengths that do not fit their image.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(codes) or codes[-1] & 0x20 or codes.min() < 0 or codes.max() > 63:
        return np.full(1, -1)
    last = np.flatnonzero(codes & 0x20 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    signs = last - first + 1
    if signs.max() > _SIGNS:
        return np.full(1, -1)
    place = np.arange(len(codes)) - np.repeat(first, signs)
    lengths: NDArray[np.int64] = np.add.reduceat((codes & 0x1F) << (5 * place), first)
    lengths -= np.where(codes[last] & 0x10, 1 << (5 * signs), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def _runs(coco: Mapping[str, Any]) -> Runs:
    height, width = coco["size"]
    return Runs((int(height), int(width)), coco["counts"])
