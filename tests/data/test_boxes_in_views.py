"""Boxes: their overlaps, and what a view of an image shows of them."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.data.augment import MOVING_TRUTH, build
from vitrail.data.boxes import (
    box_areas,
    clip_to,
    iou_table,
    join_boxes,
    make_boxes,
    make_found,
    overlap_table,
    take_found,
    view_boxes,
)
from vitrail.data.preprocess import Preprocess

SHAPE = (97, 131)


def steps(size: tuple[int, int] = (64, 48), fit: str = "squash") -> Preprocess:
    return Preprocess(size, fit, 1.0, (0.0,) * 3, (1.0,) * 3, 3)  # type: ignore[arg-type]


def test_overlaps_by_hand() -> None:
    a = np.array([[0, 0, 4, 4], [0, 0, 0, 0], [1, 1, 3, 3]], float)
    b = np.array([[2, 2, 6, 6], [0, 0, 0, 0], [0, 0, 4, 4]], float)
    assert box_areas(a).tolist() == [16, 0, 4]
    assert overlap_table(a, b).tolist() == [[4, 0, 16], [0, 0, 0], [1, 0, 4]]
    np.testing.assert_allclose(iou_table(a, b), [[4 / 28, 0, 1], [0, 0, 0], [1 / 19, 0, 0.25]])
    crowd = np.array([False, False, True])
    np.testing.assert_allclose(iou_table(a, b, crowd)[:, 2], [1, 0, 1])  # inside a crowd is part of it
    assert iou_table(a[:0], b).shape == (0, 3)


def test_found_boxes_are_sorted_and_equal_scores_keep_their_order() -> None:
    found = make_found([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [0, 1, 2], [0.5, 0.9, 0.5])
    assert found.kinds.tolist() == [1, 0, 2]
    assert take_found(found, found.scores > 0.6).kinds.tolist() == [1]
    assert make_found().xyxy.shape == make_boxes().xyxy.shape == (0, 4)


def test_boxes_are_clipped_and_those_outside_are_gone() -> None:
    boxes = make_boxes(
        [[-5, -5, 10, 10], [200, 0, 210, 10], [0, 0, 131, 97]], [0, 1, 2], [True, False, False]
    )
    clipped = clip_to(boxes, SHAPE)
    assert clipped.xyxy.tolist() == [[0, 0, 10, 10], [0, 0, 131, 97]]
    assert (clipped.kinds.tolist(), clipped.crowd.tolist()) == ([0, 2], [True, False])
    assert len(join_boxes([clipped, boxes]).kinds) == 5
    assert len(join_boxes([]).kinds) == 0


def test_a_plain_view_scales_boxes() -> None:
    boxes = make_boxes([[13.1, 9.7, 65.5, 48.5]], [3])
    shown = view_boxes(boxes, steps().view(SHAPE))
    np.testing.assert_allclose(shown.xyxy, [[4.8, 6.4, 24, 32]])
    assert shown.kinds.tolist() == [3]


def test_a_box_beyond_the_image_ends_at_the_image_and_not_in_the_padding() -> None:
    view = steps((64, 64), "pad").view((32, 64))
    shown = view_boxes(make_boxes([[10, -20, 20, 60]], [0]), view)
    np.testing.assert_allclose(shown.xyxy, [[10, 16, 20, 48]])


def test_boxes_that_are_out_of_view_or_too_thin_are_left_out() -> None:
    view = steps((40, 40), "crop").view((40, 120))  # shows x from 40 to 80
    boxes = make_boxes(
        [[0, 0, 30, 30], [30, 0, 46, 30], [36, 0, 50, 30], [60, 5, 60.5, 30], [30, 0, 100, 40]], range(5)
    )
    shown = view_boxes(boxes, view)
    assert shown.kinds.tolist() == [2, 4]  # out, centre out, kept, thinner than a pixel, kept
    assert shown.xyxy.tolist() == [[0, 0, 10, 30], [0, 0, 40, 40]]


@pytest.mark.parametrize("name", MOVING_TRUTH)
def test_boxes_move_with_their_pixels(name: str) -> None:
    """A white block on black: its box in the view is the extent of the white pixels of the view."""
    image = np.zeros((*SHAPE, 3), np.uint8)
    image[30:60, 50:90] = 255
    boxes = make_boxes([[50, 30, 90, 60]], [0])
    seen = 0
    for key in range(12):
        view = steps((96, 96)).view(SHAPE, build(name), key)
        mask = view.mask(image[..., 0] // 255, 0) > 0
        shown = view_boxes(boxes, view)
        if not len(shown.kinds):
            continue
        seen += 1
        rows, cols = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        extent = [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(shown.xyxy[0], extent, atol=1.5 if name != "light" else 2.5)
    assert seen > 5
