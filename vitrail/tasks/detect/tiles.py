"""Large images in tiles: where the tiles lie, and the boxes of all tiles as those of the whole image.

A box at an inner border of its tile is a piece of an object. Pieces are compared only with the part of other boxes
that their tile shows, so that a half is never kept beside its whole and a small object inside a large one stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import SettingError
from vitrail.data.boxes import FoundBoxes, box_areas, iou_table, make_found, overlap_table
from vitrail.data.duplicates import components

Tile = tuple[int, int, int, int]
"""A part of an image: (left, top, right, bottom) in pixels."""

OVERLAP = 0.2
"""Share of a tile that its neighbour shows, too. Objects smaller than this are seen whole by one tile."""

AGREE = 0.5
"""Intersection over union from which boxes of two tiles are one object."""

INSIDE = 0.7
"""Share of a piece that lies in the object of which it is a piece."""

RIM = 0.01
"""Boxes that end within this share of the tile from its inner border, and at least 2 pixels, are cut there."""


def tiles_of(size: tuple[int, int], tile: int, overlap: float = OVERLAP) -> list[Tile]:
    """Return square tiles that cover an image of (height, width), row by row; all have the side `tile`.

    Neighbours share at least `overlap` of a tile. A side shorter than `tile` is covered by one tile of its length.

    Raises:
        SettingError: the tile has no pixel, or the overlap is not from 0 to 0.9.
    """
    if tile < 1:
        raise SettingError(f"A tile of {tile} pixels shows nothing. Choose a side of about 640.")
    if not 0 <= overlap <= 0.9:
        raise SettingError(f"The overlap of tiles is a share from 0 to 0.9, not {overlap}.")
    rows, cols = (_starts(side, tile, overlap) for side in size)
    height, width = size
    return [(left, top, min(width, left + tile), min(height, top + tile)) for top in rows for left in cols]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return evenly spaced starts of tiles on a side, the last one at its end."""
    if side <= tile:
        return [0]
    steps = math.ceil((side - tile) / max(1, math.floor(tile * (1 - overlap))))
    return [round(i * (side - tile) / steps) for i in range(steps + 1)]


@dataclass(frozen=True)
class _Pieces:
    """The boxes of one tile in pixels of the image, and the inner borders at which each is cut: (n, 4)."""

    tile: Tile
    xyxy: NDArray[np.float64]
    kinds: NDArray[np.int64]
    scores: NDArray[np.float64]
    cut: NDArray[np.bool_]

    @property
    def whole(self) -> NDArray[np.bool_]:
        whole: NDArray[np.bool_] = np.logical_not(self.cut.any(1))
        return whole

    def cut_along(self, axis: int) -> NDArray[np.bool_]:
        """Return which boxes are cut at a border across an axis: at the left or right one for 0."""
        cut: NDArray[np.bool_] = self.cut[:, axis] | self.cut[:, axis + 2]
        return cut


def merge_tiles(found: Sequence[FoundBoxes], tiles: Sequence[Tile], size: tuple[int, int]) -> FoundBoxes:
    """Return the boxes of an image (height, width) from those of its tiles; see `merge_pieces`."""
    return merge_pieces(found, tiles, size)[0]


def merge_pieces(
    found: Sequence[FoundBoxes], tiles: Sequence[Tile], size: tuple[int, int]
) -> tuple[FoundBoxes, list[list[int]]]:
    """Return the boxes of an image (height, width) from those of its tiles, each in pixels of its tile.

    Pieces of one object are joined, halves of an object that another tile shows whole are left out, and of equal boxes
    of several tiles the one with the highest score stays. Boxes of the same tile are never merged. Also return the
    pieces of each box, as places in all boxes of all tiles one after the other.
    """
    pieces = [_pieces(one, tile, size) for one, tile in zip(found, tiles, strict=True)]
    starts = np.cumsum([0, *(len(one.kinds) for one in pieces)])
    halves = np.zeros(starts[-1], np.bool_)
    links: list[tuple[int, int]] = []
    pairs = list(_neighbours(tiles))
    for i, j in pairs:
        for a, b in ((i, j), (j, i)):
            halves[starts[a] : starts[a + 1]] |= _halves(pieces[a], pieces[b])
    for i, j in pairs:
        one, other = np.nonzero(_same_object(pieces[i], pieces[j]))
        links += zip((one + starts[i]).tolist(), (other + starts[j]).tolist(), strict=True)
    groups = _groups(len(halves), [link for link in links if not halves[list(link)].any()])
    every = _columns(pieces)
    owners = np.repeat(np.arange(len(pieces)), np.diff(starts))
    kept = [members for members in groups if not halves[members[0]]]
    boxes = [_joined(every, members) for members in kept]
    shown_by = [set(owners[members].tolist()) for members in kept]
    chosen = _without_repeats(boxes, shown_by)
    merged = make_found(*([boxes[i][part] for i in chosen] for part in range(3)))
    return merged, [kept[i] for i in chosen]


def _pieces(found: FoundBoxes, tile: Tile, size: tuple[int, int]) -> _Pieces:
    left, top, right, bottom = tile
    xyxy = found.xyxy + np.array((left, top, left, top), np.float64)
    near = [max(2.0, RIM * side) for side in (right - left, bottom - top)] * 2
    inner = np.array([left > 0, top > 0, right < size[1], bottom < size[0]])
    distance = np.abs(xyxy - np.array(tile, np.float64))
    return _Pieces(tile, xyxy, found.kinds, found.scores, (distance <= near) & inner)


def _columns(pieces: Sequence[_Pieces]) -> FoundBoxes:
    """Return the boxes of all tiles one after the other, in pixels of the image and unsorted."""
    if not pieces:
        return make_found()
    return FoundBoxes(
        np.concatenate([one.xyxy for one in pieces]),
        np.concatenate([one.kinds for one in pieces]),
        np.concatenate([one.scores for one in pieces]),
    )


def _neighbours(tiles: Sequence[Tile]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of tiles that overlap or touch."""
    for i, a in enumerate(tiles):
        for j in range(i + 1, len(tiles)):
            b = tiles[j]
            if max(a[0], b[0]) <= min(a[2], b[2]) and max(a[1], b[1]) <= min(a[3], b[3]):
                yield i, j


def _halves(one: _Pieces, other: _Pieces) -> NDArray[np.bool_]:
    """Return which boxes of a tile are cut there and are a piece of an object that the other tile shows whole."""
    whole = other.xyxy[other.whole]
    kinds = other.kinds[other.whole]
    if not len(one.kinds) or not len(whole):
        return np.zeros(len(one.kinds), np.bool_)
    visible = _clip(whole, one.tile)
    alike = iou_table(one.xyxy, visible) >= AGREE
    inside = overlap_table(one.xyxy, visible) >= INSIDE * np.maximum(box_areas(one.xyxy), 1e-9)[:, None]
    # A thin slice changes its overlap with every pixel of error: along the border its ends must agree.
    across, down = one.cut_along(0), one.cut_along(1)
    slices = (across & ~down)[:, None] & (_span_table(one.xyxy, visible, 1) >= AGREE)
    slices |= (down & ~across)[:, None] & (_span_table(one.xyxy, visible, 0) >= AGREE)
    pieces = (alike | (inside & slices)) & (box_areas(visible) > 0)[None]
    found: NDArray[np.bool_] = (pieces & (one.kinds[:, None] == kinds[None])).any(1) & ~one.whole
    return found


def _same_object(one: _Pieces, other: _Pieces) -> NDArray[np.bool_]:
    """Return which cut boxes of two tiles are pieces of one object: they agree where both tiles show it."""
    a, b = one.tile, other.tile
    common = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    first, second = _clip(one.xyxy, common), _clip(other.xyxy, common)
    if common[0] < common[2] and common[1] < common[3]:
        same = iou_table(first, second) >= AGREE
    else:  # tiles that only touch: the pieces end at the same border, at the same height
        axis = 1 if common[0] == common[2] else 0
        meets = _span_table(first, second, axis) >= AGREE
        ends = one.cut_along(1 - axis)[:, None] & other.cut_along(1 - axis)[None]
        same = meets & ends
    both = (~one.whole)[:, None] & (~other.whole)[None]
    found: NDArray[np.bool_] = same & both & (one.kinds[:, None] == other.kinds[None])
    return found


def _clip(xyxy: NDArray[np.float64], tile: Tile) -> NDArray[np.float64]:
    """Return the parts of boxes (n, 4) inside a tile; those outside have no area."""
    low, high = np.array(tile[:2], np.float64), np.array(tile[2:], np.float64)
    return np.concatenate([np.clip(xyxy[:, :2], low, high), np.clip(xyxy[:, 2:], low, high)], 1)


def _span_table(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the intersection over union (n, m) of the sides of boxes along an axis, 0 for x."""
    low = np.maximum(a[:, None, axis], b[None, :, axis])
    high = np.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
    common = np.clip(high - low, 0, None)
    whole = (a[:, axis + 2] - a[:, axis])[:, None] + (b[:, axis + 2] - b[:, axis])[None] - common
    shares: NDArray[np.float64] = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares


def _groups(number: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the boxes 0 … number - 1 in groups that are connected by links; most stand alone."""
    linked = components(number, links)
    together = {i for members in linked for i in members}
    return sorted([*linked, *([i] for i in range(number) if i not in together)])


def _joined(every: FoundBoxes, members: Sequence[int]) -> tuple[NDArray[np.float64], int, float]:
    """Return the box around pieces, their class, and their highest score."""
    corners = every.xyxy[list(members)]
    around = np.concatenate([corners[:, :2].min(0), corners[:, 2:].max(0)])
    return around, int(every.kinds[members[0]]), float(every.scores[list(members)].max())


def _without_repeats(
    boxes: Sequence[tuple[NDArray[np.float64], int, float]], shown_by: Sequence[set[int]]
) -> list[int]:
    """Return the places of the boxes, best first, without those that repeat a better box of other tiles.

    A box stands for one box of each other tile at most, so that two objects that overlap in both tiles remain two.
    """
    order = sorted(range(len(boxes)), key=lambda i: -boxes[i][2])
    kept: list[int] = []
    taken: list[set[int]] = []
    corners = np.zeros((len(boxes), 4))
    kinds = np.zeros(len(boxes), np.int64)
    for i in order:
        xyxy, kind, _ = boxes[i]
        overlaps = iou_table(xyxy[None], corners[: len(kept)])[0] * (kinds[: len(kept)] == kind)
        better = [
            place for place in np.argsort(-overlaps, kind="stable").tolist() if overlaps[place] >= AGREE
        ]
        place = next((one for one in better if not shown_by[i] & taken[one]), None)
        if place is not None:
            taken[place] |= shown_by[i]
        else:
            corners[len(kept)], kinds[len(kept)] = xyxy, kind
            kept.append(i)
            taken.append(set(shown_by[i]))
    return kept
