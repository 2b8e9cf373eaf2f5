"""Panoptic quality equals a plain count of segments, pair by pair, as COCO's panoptic evaluation describes it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vitrail.metrics.panoptic_quality import SharedPixels, count_segments, pair_segments, panoptic_quality

CLASSES = 5


def paired(found, true, crowd):
    return pair_segments(SharedPixels.of(true, found), crowd, CLASSES)


def counted(found, true, crowd):
    """Return iou, tp, fp and fn of each class, from sets of pixels."""
    pixels = [{} for _ in range(2)]
    for ids, segments in zip((found[0], true[0]), pixels, strict=True):
        for place, number in np.ndenumerate(ids):
            segments.setdefault(int(number), set()).add(place)
    answers, truths = pixels
    void = truths.pop(0, set())
    answers.pop(0, None)
    scores = {kind: Counter() for kind in range(CLASSES)}
    used_answers, used_truths, crowds = set(), set(), {}
    for t, area in truths.items():
        kind = int(true[1][t - 1])
        if crowd[t - 1]:
            crowds[kind] = area
            continue
        for a, own in answers.items():
            iou = len(area & own) / len(area | (own - void))
            if int(found[1][a - 1]) == kind and iou > 0.5:
                scores[kind].update(iou=iou, tp=1)
                used_answers.add(a)
                used_truths.add(t)
        if t not in used_truths:
            scores[kind]["fn"] += 1
    for a, own in answers.items():
        kind = int(found[1][a - 1])
        outside = len(own & void) + len(own & crowds.get(kind, set()))
        if a not in used_answers and outside / len(own) <= 0.5:
            scores[kind]["fp"] += 1
    return [[scores[kind][name] for name in ("iou", "tp", "fp", "fn")] for kind in range(CLASSES)]


def picture(seed, side=24):
    """Return predicted and true segments: shifted, of other classes, with void, crowds, and some without a pixel."""
    rng = np.random.default_rng(seed)
    true, kinds, crowd = np.zeros((side, side), np.int32), [], []
    for number in range(1, int(rng.integers(2, 9))):
        top, left = rng.integers(0, side - 4, 2)
        tall, wide = rng.integers(3, 14, 2)
        true[top : top + tall, left : left + wide] = number
        kinds.append(int(rng.integers(0, CLASSES - 1)))
        crowd.append(
            rng.random() < 0.25 and not any(c and k == kinds[-1] for c, k in zip(crowd, kinds, strict=False))
        )
    found = np.roll(true, tuple(rng.integers(-2, 3, 2)), (0, 1))
    extra = rng.integers(0, side - 6, 2)
    found[extra[0] : extra[0] + 6, extra[1] : extra[1] + 6] = len(kinds) + 1
    answers = [kind if rng.random() < 0.8 else int(rng.integers(0, CLASSES - 1)) for kind in kinds]
    return (found, np.array([*answers, 0])), (true, np.array(kinds)), np.array(crowd, bool)


def test_every_count_equals_the_plain_one():
    sums = np.zeros((CLASSES, 4))
    for seed in range(200):
        found, true, crowd = picture(seed)
        own = count_segments(paired(found, true, crowd), CLASSES)
        np.testing.assert_allclose(own, counted(found, true, crowd), rtol=0, atol=1e-12)
        sums += own
    assert (sums[:-1] > 20).all()
    iou, right, invented, missed = sums[0]
    quality = panoptic_quality(sums)
    assert quality.pq[0] == pytest.approx(iou / (right + 0.5 * invented + 0.5 * missed))
    np.testing.assert_allclose(quality.pq[:-1], (quality.sq * quality.rq)[:-1])
    assert np.isnan([one[-1] for one in quality]).all()


def rows_of(*lengths):
    """Return a map of one row with so many pixels of the segments 0, 1, 2, …"""
    return np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)[None]


def pairs_of(found, true, kinds=(0, 0), crowd=(False,)):
    segments = (found, np.array(kinds[: found.max()])), (true, np.array([0] * int(true.max())))
    return paired(*segments, np.array(crowd))


def test_exactly_half_is_no_pair():
    half = pairs_of(rows_of(10, 10), rows_of(0, 20))
    assert sorted(zip(half.truth.tolist(), half.answer.tolist(), strict=True)) == [(0, CLASSES), (CLASSES, 0)]
    more = pairs_of(rows_of(9, 11), rows_of(0, 20))
    assert more.ious.tolist() == [11 / 20]
    assert more.found.tolist() == [0]


def test_void_is_no_part_of_the_union():
    """11 of 20 true pixels are found, and 8 pixels of the prediction lie in void."""
    true = np.array([[1] * 20 + [0] * 8], np.int32)
    found = np.array([[0] * 9 + [1] * 19], np.int32)
    assert pairs_of(found, true).ious.tolist() == [11 / 20]


def test_predictions_in_void_and_in_crowds_of_their_class_are_left_out():
    true, crowd = np.array([[1] * 10 + [0] * 10], np.int32), (True,)
    found = np.array([[1] * 8 + [2] * 2 + [2] * 3 + [0] * 7], np.int32)
    assert not len(pairs_of(found, true, (0, 1), crowd).truth)  # 3 of 5 pixels of the other class are void
    found = np.array([[1] * 8 + [2] * 2 + [2] * 2 + [0] * 8], np.int32)
    assert pairs_of(found, true, (0, 1), crowd).answer.tolist() == [1]  # half of it is not more than half
    assert not len(pairs_of(found, true, (0, 0), crowd).truth)


def test_all_crowds_of_a_class_count_together():
    true = np.array([[1, 1, 2, 2, 0, 3, 3, 3]], np.int32)
    found = np.array([[1, 1, 1, 1, 0, 1, 1, 1]], np.int32)
    segments = (true, np.array([0, 0, 1]))
    pairs = paired((found, np.array([0])), segments, np.array([True, True, False]))
    assert (pairs.truth.tolist(), pairs.answer.tolist()) == ([1], [CLASSES])


def test_another_class_in_the_same_place_is_told_as_one_mistake():
    pairs = pairs_of(rows_of(2, 10), rows_of(1, 11), kinds=(3,))
    assert (pairs.truth.tolist(), pairs.answer.tolist(), pairs.ious.tolist()) == ([0], [3], [10 / 11])
    assert count_segments(pairs, CLASSES)[[0, 3]].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_counts_of_many_draws():
    counts = np.stack([count_segments(paired(*picture(seed)), CLASSES) for seed in range(6)])
    draws = np.array([[1] * 6, [0, 2, 0, 1, 3, 0]], float)
    drawn = panoptic_quality(np.tensordot(draws, counts, 1))
    alone = panoptic_quality(counts[[1, 1, 3, 4, 4, 4]].sum(0))
    for one, other in zip(drawn, alone, strict=True):
        np.testing.assert_allclose(one[1], other)


def test_large_maps_are_counted_in_pieces(monkeypatch):
    found, true, crowd = picture(3)
    whole = paired(found, true, crowd)
    monkeypatch.setattr("vitrail.metrics.panoptic_quality.AT_ONCE", 100)
    for one, other in zip(paired(found, true, crowd), whole, strict=True):
        assert np.array_equal(one, other)


def test_nothing_at_all():
    nothing = (np.zeros((3, 3), np.int32), np.zeros(0, np.int64))
    pairs = paired(nothing, nothing, np.zeros(0, bool))
    assert np.isnan(panoptic_quality(count_segments(pairs, CLASSES)).pq).all()
