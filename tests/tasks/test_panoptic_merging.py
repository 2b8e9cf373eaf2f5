"""Things and areas as one map of segments."""

import numpy as np
import pytest

from vitrail.data.boxes import make_found
from vitrail.data.instances import FoundInstances, boxes_around, to_runs
from vitrail.tasks.panoptic.merging import Rules, things_first

SKY, ROAD, CAR = range(3)
RULES = Rules((CAR,), 3, 0.5, 4)


def found(masks, scores):
    runs = to_runs(np.array(masks, bool).reshape(-1, 8, 10))
    return FoundInstances(make_found(boxes_around(runs), np.zeros(len(runs)), scores), runs)


def box(top, left, bottom, right):
    mask = np.zeros((8, 10), bool)
    mask[top:bottom, left:right] = True
    return mask


AREAS = np.where(np.arange(8)[:, None] < 4, SKY, ROAD).repeat(10, 1).astype(np.uint8)


def test_things_lie_on_areas_and_the_surest_thing_on_top():
    cars = found([box(3, 0, 7, 4), box(3, 3, 7, 8)], [0.9, 0.6])
    merged = things_first(cars, AREAS, RULES)
    assert merged.kinds.tolist() == [CAR, CAR, SKY, ROAD]
    assert merged.scores.tolist() == [0.9, 0.6, 1.0, 1.0]
    assert (merged.ids == 1).sum() == 16
    assert (merged.ids == 2).sum() == 20 - 4  # what the first one covers is its own
    assert merged.ids[0, 0] == 3
    assert merged.ids[7, 9] == 4
    assert (merged.ids > 0).all()


def test_a_thing_that_better_ones_hide_is_left_out():
    cars = found([box(0, 0, 4, 4), box(0, 0, 4, 6)], [0.9, 0.6])
    assert things_first(cars, AREAS, RULES).kinds.tolist() == [CAR, SKY, ROAD]
    generous = RULES._replace(hidden=0.9)
    assert things_first(cars, AREAS, generous).kinds.tolist() == [CAR, CAR, SKY, ROAD]


@pytest.mark.parametrize(("pixels", "kept"), [(3, False), (4, True)])
def test_a_small_area_and_a_thing_without_an_object_belong_to_no_segment(pixels, kept):
    areas = np.full((8, 10), SKY, np.uint8)
    areas[7, :pixels] = ROAD
    areas[0, :5] = CAR
    merged = things_first(found([], []), areas, RULES)
    assert merged.kinds.tolist() == ([SKY, ROAD] if kept else [SKY])
    assert (merged.ids[0, :5] == 0).all()
    assert (merged.ids[7, :pixels] > 0).all() == kept


def test_pixels_outside_the_input_belong_to_no_segment():
    areas = AREAS.copy()
    areas[:, 9] = 255
    merged = things_first(found([box(0, 0, 2, 2)], [0.5]), areas, RULES)
    assert (merged.ids[:, 9] == 0).all()
    assert merged.kinds.tolist() == [CAR, SKY, ROAD]
