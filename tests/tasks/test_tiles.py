"""Boxes of tiles become those of the whole image: planted objects across borders, inside others, and side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vitrail.core.errors import SettingError
from vitrail.data.boxes import FoundBoxes, iou_table, make_found
from vitrail.tasks.detect.tiles import Tile, merge_tiles, tiles_of

SIZE = (700, 900)
TILES = tiles_of(SIZE, 320, 0.2)


def seen(
    objects: list[tuple[float, ...]], tiles: list[Tile], jitter: float = 0.0, kinds: list[int] | None = None
) -> list[FoundBoxes]:
    """Return what a perfect detector answers for each tile: the visible part of each object, in pixels of the tile."""
    draw = np.random.default_rng(3)
    found = []
    for left, top, right, bottom in tiles:
        boxes, which, scores = [], [], []
        for number, one in enumerate(objects):
            part = (max(one[0], left), max(one[1], top), min(one[2], right), min(one[3], bottom))
            if part[2] - part[0] < 1 or part[3] - part[1] < 1:
                continue
            moved = np.array(part) - (left, top, left, top) + draw.uniform(-jitter, jitter, 4)
            boxes.append(np.clip(moved, 0, [right - left, bottom - top] * 2))
            which.append(kinds[number] if kinds else 0)
            scores.append(0.9 - 0.01 * number - 0.001 * draw.random())
        found.append(make_found(boxes, which, scores))
    return found


def merged(objects: list[tuple[float, ...]], tiles: list[Tile] = TILES, **how: object) -> np.ndarray:
    found = merge_tiles(seen(objects, tiles, **how), tiles, SIZE)  # type: ignore[arg-type]
    return found.xyxy[np.lexsort(found.xyxy.T)]


def same(found: np.ndarray, objects: list[tuple[float, ...]], least: float = 0.999) -> bool:
    """Return whether each object was found once, and nothing else."""
    table = iou_table(found, np.array(objects, np.float64)) >= least
    return len(found) == len(objects) and bool((table.sum(0) == 1).all() and (table.sum(1) == 1).all())


def test_tiles_cover_every_pixel_and_share_their_rims() -> None:
    for size, tile, overlap in (
        (SIZE, 320, 0.2),
        ((100, 37), 40, 0.0),
        ((64, 64), 100, 0.2),
        ((511, 512), 128, 0.5),
    ):
        covered = np.zeros(size, int)
        tiles = tiles_of(size, tile, overlap)
        for left, top, right, bottom in tiles:
            assert (right - left, bottom - top) == (min(tile, size[1]), min(tile, size[0]))
            covered[top:bottom, left:right] += 1
        assert covered.min() == 1 or overlap > 0.3
        lefts = sorted({tile_[0] for tile_ in tiles})
        assert all(b - a <= round(tile * (1 - overlap)) for a, b in pairwise(lefts))
    assert tiles_of((50, 60), 80) == [(0, 0, 60, 50)]
    for tile, overlap in ((0, 0.2), (64, 0.95), (64, -0.1)):
        with pytest.raises(SettingError):
            tiles_of(SIZE, tile, overlap)


@pytest.mark.parametrize("jitter", [0.0, 1.5])
def test_no_half_is_kept_beside_its_whole(jitter: float) -> None:
    """obss/sahi 214: an object at the border of a tile is there once."""
    borders = sorted({side for one in TILES for side in (one[0], one[2])} - {0, 900})
    objects = [(x - 11.0, 40.0 + 60 * i, x + 13.0, 70.0 + 60 * i) for i, x in enumerate(borders)]
    assert same(merged(objects, jitter=jitter), objects, 0.999 if not jitter else 0.75)


@pytest.mark.parametrize("jitter", [0.0, 1.5])
def test_an_object_that_no_tile_shows_whole_is_joined(jitter: float) -> None:
    """obss/sahi 431: halves are joined, along both axes."""
    for one in ((100, 100, 560, 160), (100, 100, 160, 640), (60, 60, 840, 650), (250, 250, 700, 690)):
        assert same(merged([one], jitter=jitter), [one], 0.999 if not jitter else 0.95)


def test_a_small_object_inside_a_large_one_survives() -> None:
    """obss/sahi 560: intersection over the smaller area swallows it."""
    lorry, wheel, window = (
        (200.0, 200.0, 760.0, 480.0),
        (300.0, 400.0, 352.0, 452.0),
        (560.0, 230.0, 600.0, 260.0),
    )
    assert same(merged([lorry, wheel, window]), [lorry, wheel, window])
    large, small = (10.0, 10.0, 120.0, 120.0), (40.0, 40.0, 60.0, 60.0)
    assert same(merged([large, small]), [large, small])


def test_a_small_object_at_a_border_inside_a_large_one_survives() -> None:
    edge = float(TILES[0][2])
    large, small = (edge - 150, 20.0, edge + 40, 150.0), (edge - 10, 60.0, edge + 9, 80.0)
    assert same(merged([large, small]), [large, small])


def test_two_objects_that_overlap_in_both_tiles_stay_two() -> None:
    edge = TILES[0][2]
    a, b = (edge - 60.0, 30.0, edge - 12.0, 90.0), (edge - 52.0, 30.0, edge - 5.0, 90.0)
    assert iou_table(np.array([a]), np.array([b]))[0, 0] > 0.5
    assert same(merged([a, b]), [a, b])


def test_other_classes_are_never_merged() -> None:
    box = (300.0, 40.0, 340.0, 80.0)
    found = merge_tiles(seen([box, box], TILES, kinds=[0, 1]), TILES, SIZE)
    assert sorted(found.kinds.tolist()) == [0, 1]


def test_tiles_without_overlap_join_what_they_cut() -> None:
    tiles = tiles_of((600, 900), 300, 0.0)
    objects = [(200.0, 50.0, 420.0, 90.0), (500.0, 250.0, 530.0, 350.0), (20.0, 20.0, 60.0, 60.0)]
    found = merge_tiles(seen(objects, tiles), tiles, (600, 900))
    assert same(found.xyxy, objects)


def test_a_half_whose_other_half_was_missed_is_kept() -> None:
    tiles = tiles_of((300, 560), 300, 0.1)
    found = [make_found([[250, 40, 300, 90]], [0], [0.6]), make_found()]
    joined = merge_tiles(found, tiles, (300, 560))
    assert joined.xyxy.tolist() == [[250, 40, 300, 90]]
    assert len(merge_tiles([make_found()], [(0, 0, 9, 9)], (9, 9)).kinds) == 0
    assert len(merge_tiles([], [], (9, 9)).kinds) == 0


def test_a_crowded_image_keeps_all_its_objects() -> None:
    """A field of small objects of random places, none overlapping by more than a little."""
    draw = np.random.default_rng(11)
    objects: list[tuple[float, ...]] = []
    while len(objects) < 150:
        x, y, w, h = draw.uniform(0, 860), draw.uniform(0, 660), draw.uniform(8, 50), draw.uniform(8, 50)
        one = (x, y, min(900.0, x + w), min(700.0, y + h))
        if not objects or iou_table(np.array([one]), np.array(objects)).max() < 0.2:
            objects.append(one)
    assert same(merged(objects), objects)
