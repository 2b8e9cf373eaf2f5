"""Masks as run lengths and as outlines."""

import numpy as np
import pytest

from vitrail.core.errors import DataError
from vitrail.data.instances import (
    Runs,
    boxes_around,
    from_coco,
    from_polygons,
    from_runs,
    joined_runs,
    mask_areas,
    mask_overlaps,
    moved_runs,
    runs_at,
    to_runs,
)
from vitrail.data.mask_outlines import keyhole, outlines


def random_mask(seed, size=(23, 31), share=0.4):
    return np.random.default_rng(seed).random(size) < share


def ring(size=(40, 40), outer=15, inner=7, centre=(20, 20)):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    far = np.hypot(y - centre[0], x - centre[1])
    return (far < outer) & (far >= inner)


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_in_a_part_of_an_image_is_the_same_mask_of_the_image(seed):
    mask = random_mask(seed, share=[0.0, 0.1, 0.4, 0.9, 1.0, 0.5][seed])
    whole = np.zeros((50, 60), bool)
    whole[7:30, 9:40] = mask
    assert runs_at(mask, (7, 9), (50, 60)) == to_runs(whole[None])[0]
    assert moved_runs(to_runs(mask[None])[0], (7, 9), (50, 60)) == to_runs(whole[None])[0]


def test_a_mask_of_whole_columns_is_one_run():
    mask = np.ones((20, 5), bool)
    assert runs_at(mask, (0, 3), (20, 10)) == to_runs(np.pad(mask, ((0, 0), (3, 2)))[None])[0]


def test_run_lengths_as_numbers_and_as_text_are_the_same_mask():
    (runs,) = to_runs(np.array([[[0, 1, 1], [1, 1, 0]]], bool))
    numbers = {"size": [2, 3], "counts": [1, 4, 1]}
    assert from_coco(numbers) == from_coco(runs.to_dict()) == runs
    assert from_runs([runs], (2, 3))[0].tolist() == [[False, True, True], [True, True, False]]


def test_run_lengths_of_another_image_are_refused():
    with pytest.raises(DataError, match="count 5 pixels in an image of 3 x 2"):
        from_coco({"size": [2, 3], "counts": [2, 3]})
    with pytest.raises(DataError, match="three corners"):
        from_polygons([[1, 1, 2, 2]], (5, 5))


def test_areas_boxes_overlaps_and_unions():
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:4, 2:6] = masks[1, 3:6, 4:8] = True
    runs = to_runs(masks)
    assert mask_areas(runs).tolist() == [12, 12]
    assert boxes_around(runs).tolist() == [[2, 1, 6, 4], [4, 3, 8, 6]]
    overlap = mask_overlaps(runs, runs, np.array([False, True]))
    assert overlap == pytest.approx(np.array([[1, 2 / 12], [2 / 22, 1]]))
    assert from_runs([joined_runs(runs)], (6, 8))[0].tolist() == masks.any(0).tolist()
    assert mask_areas(()).shape == (0,)
    assert mask_areas(runs * 150).tolist() == [12] * 300
    assert boxes_around(()).shape == (0, 4)
    assert mask_overlaps((), runs, np.zeros(2, bool)).shape == (0, 2)
    assert to_runs(masks[:0]) == ()
    assert isinstance(runs[0], Runs)


def inside(polygons, size):
    """Return which pixel centres an odd number of the rings contains."""
    from matplotlib.path import Path

    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    points = np.stack([x.ravel(), y.ravel()], 1)
    count = sum(Path(np.concatenate([one, one[:1]])).contains_points(points).astype(int) for one in polygons)
    return (count % 2 == 1).reshape(size)


def test_a_ring_has_one_part_with_one_hole_and_its_outlines_hold_exactly_its_pixels():
    mask = ring()
    (part,) = outlines(mask)
    assert len(part.holes) == 1
    assert inside([part.outer, *part.holes], mask.shape).tolist() == mask.tolist()
    assert outlines(mask, (100, 200))[0].outer == pytest.approx(part.outer + np.array([200, 100]))


@pytest.mark.parametrize("seed", range(4))
def test_outlines_of_any_mask_hold_exactly_its_pixels(seed):
    mask = random_mask(seed)
    parts = outlines(mask)
    rings = [one for part in parts for one in (part.outer, *part.holes)]
    assert inside(rings, mask.shape).tolist() == mask.tolist()


def test_one_line_around_two_pieces_and_a_hole_encloses_their_area():
    mask = ring() | np.pad(np.ones((5, 5), bool), ((0, 35), (35, 0)))
    line = keyhole(outlines(mask))
    x, y = line.T
    area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
    assert area == pytest.approx(mask.sum(), rel=0.02)
    assert outlines(np.zeros((4, 4), bool)) == []
    assert keyhole([]).shape == (0, 2)
