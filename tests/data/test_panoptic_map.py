"""Panoptic maps of the truth: objects on top of each other, crowds below, stuff around, and void."""

from __future__ import annotations

import numpy as np

from vitrail.data.boxes import make_boxes
from vitrail.data.instances import Instances, boxes_around, to_runs
from vitrail.data.panoptic import true_map

SIZE = (6, 8)
THINGS = np.array([True, False, True, False])


def objects(*windows, kinds, crowd=None):
    """Return objects of rectangles (top, left, bottom, right); `kinds` are places among the things."""
    masks = np.zeros((len(windows), *SIZE), bool)
    for mask, (top, left, bottom, right) in zip(masks, windows, strict=True):
        mask[top:bottom, left:right] = True
    runs = to_runs(masks)
    return Instances(make_boxes(boxes_around(runs), kinds, crowd), runs)


def test_the_smaller_object_lies_on_top_and_crowds_below():
    true = objects((0, 0, 2, 2), (0, 0, 4, 4), (0, 0, 1, 8), kinds=[0, 1, 1], crowd=[False, False, True])
    found = true_map(true, np.full(SIZE, 255, np.uint8), THINGS)
    assert found.ids[0].tolist() == [1, 1, 2, 2, 3, 3, 3, 3]
    assert found.ids[3].tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert found.kinds.tolist() == [0, 2, 2]
    assert found.crowds.tolist() == [False, False, True]


def test_stuff_is_one_segment_a_class_beside_objects():
    classes = np.full(SIZE, 1, np.uint8)
    classes[3:], classes[5] = 3, 255
    classes[0, :4] = 0  # a thing, but of no object in the second half
    found = true_map(objects((0, 0, 1, 2), kinds=[0]), classes, THINGS)
    assert found.ids[0].tolist() == [1, 1, 0, 0, 2, 2, 2, 2]
    assert found.ids[:, 7].tolist() == [2, 2, 2, 3, 3, 0]
    assert found.kinds.tolist() == [0, 1, 3]
    assert found.scores.tolist() == [1, 1, 1]
    assert found.ids[:, 0].tolist() == [1, 2, 2, 3, 3, 0]


def test_an_object_without_a_visible_pixel_is_left_out():
    true = objects((0, 0, 1, 2), (0, 0, 1, 2), (2, 2, 3, 3), kinds=[0, 1, 0])
    found = true_map(true, np.full(SIZE, 1, np.uint8), THINGS)
    assert found.kinds.tolist() == [2, 0, 1]  # of equal objects the later one lies on top
    assert sorted(np.unique(found.ids).tolist()) == [1, 2, 3]
    assert found.ids[2, 2] == 2


def test_nothing_but_void():
    found = true_map(objects(kinds=[]), np.full(SIZE, 255, np.uint8), THINGS)
    assert not found.ids.any()
    assert len(found.kinds) == len(found.crowds) == 0
