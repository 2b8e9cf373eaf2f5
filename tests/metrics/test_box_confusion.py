"""Confusion, missed, invented and double boxes, counted by hand; the threshold with the best F1."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.data.boxes import make_boxes, make_found
from vitrail.metrics.box_confusion import confusion, count_duplicates, pair_boxes
from vitrail.metrics.box_matching import match_boxes
from vitrail.metrics.score_threshold import best_threshold, threshold_curve
from vitrail.metrics.temperature import scale_scores, score_logits

CAT, DOG = 0, 1
A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]


def table(truths, found, least=0.5):
    return confusion([pair_boxes(found, truths, match_boxes(found, truths, 2), least)], 2).tolist()


def test_by_hand():
    truths = make_boxes([A, B, C], [CAT, DOG, DOG])
    # A right; B is taken for a cat; C is found below the threshold; one cat is invented beside.
    found = make_found([A, B, C, [0, 30, 9, 39]], [CAT, CAT, DOG, CAT], [0.9, 0.8, 0.3, 0.6])
    assert table(truths, found) == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert table(truths, found, 0.3) == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_the_threshold_itself_counts():
    truths, found = make_boxes([A], [CAT]), make_found([A], [CAT], [0.5])
    assert table(truths, found, 0.5)[CAT][CAT] == 1
    assert table(truths, found, np.nextafter(0.5, 1)) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_the_own_class_goes_before_a_larger_overlap():
    truths = make_boxes([A], [CAT])
    found = make_found([A, [0, 0, 10, 8]], [DOG, CAT], [0.9, 0.6])
    assert table(truths, found) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_across_classes_the_largest_overlap_is_paired():
    truths = make_boxes([A, [0, 0, 10, 8]], [CAT, CAT])
    found = make_found([[0, 0, 10, 8]], [DOG], [0.9])
    pairs = pair_boxes(found, truths, match_boxes(found, truths, 2), 0.5)
    assert sorted(zip(pairs.truth.tolist(), pairs.answer.tolist(), strict=True)) == [(CAT, DOG), (CAT, 2)]
    assert pairs.scores.tolist() == [0.9, 0.0]


def test_two_answers_for_one_object():
    truths = make_boxes([A], [CAT])
    found = make_found([A, A, A], [CAT, CAT, DOG], [0.9, 0.8, 0.7])
    assert table(truths, found) == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert count_duplicates(found.xyxy, found.kinds) == (3, 2)
    assert count_duplicates(np.array([A, [0, 0, 10, 9]], float), np.zeros(2, int)) == (0, 0)  # exactly 0.9


def test_a_crowd_is_neither_missed_nor_invented():
    truths = make_boxes([[0, 0, 100, 100]], [CAT], [True])
    inside = make_found([A, B, C], [CAT, CAT, DOG], [0.9, 0.8, 0.7])
    assert table(truths, make_found()) == [[0, 0, 0]] * 3
    assert table(truths, inside) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_no_images():
    assert confusion([], 2).tolist() == [[0, 0, 0]] * 3


def test_scores_by_threshold():
    curve = threshold_curve(
        np.array([0.9, 0.6, 0.6, 0.2]),
        np.array([True, True, False, True]),
        4,
        np.array([0, 0.5, 0.6, 0.7, 1]),
    )
    assert curve.precision[:4].tolist() == pytest.approx([3 / 4, 2 / 3, 2 / 3, 1])
    assert np.isnan(curve.precision[4])
    assert curve.recall.tolist() == [0.75, 0.5, 0.5, 0.25, 0]
    assert curve.f1.tolist() == pytest.approx([6 / 8, 4 / 7, 4 / 7, 2 / 5, 0])


def test_the_best_threshold_lies_between_two_scores():
    right = np.array([True] * 6 + [False] * 6)
    scores = np.linspace(0.95, 0.4, 12)
    assert best_threshold(scores, right, 6) == pytest.approx((scores[5] + scores[6]) / 2, abs=1e-6)
    assert best_threshold(scores, right, 4) == 0.5  # too few to choose
    assert best_threshold(scores, ~np.ones(12, bool), 6) == 0.5


def test_a_temperature_keeps_the_order_and_is_taken_back_by_its_inverse():
    scores = np.linspace(0.01, 0.99, 50)
    for temperature in (0.5, 1.0, 3.0):
        scaled = scale_scores(scores, temperature)
        assert (np.diff(scaled) > 0).all()
        np.testing.assert_allclose(scale_scores(scaled, 1 / temperature), scores, atol=1e-12)
        np.testing.assert_allclose(score_logits(scaled) * temperature, score_logits(scores), atol=1e-9)
    assert np.isfinite(score_logits(np.array([0.0, 1.0]))).all()
