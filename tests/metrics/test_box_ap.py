"""Average precision of boxes and masks equals pycocotools; bootstrap samples are as if computed alone."""

from __future__ import annotations

import numpy as np
import pytest
from coco_oracle import coco_eval, mask_pictures, pictures

from vitrail.data.boxes import make_boxes, make_found
from vitrail.data.instances import mask_areas, mask_overlaps
from vitrail.metrics.box_ap import BoxSet, average_precision
from vitrail.metrics.box_matching import SIZES, Shared, match_boxes, match_objects

pytest.importorskip("pycocotools")


def matched(truths, found, classes):
    images = [match_boxes(one, true, classes) for one, true in zip(found, truths, strict=True)]
    return BoxSet.of(images, classes)


def matched_masks(truths, found, classes):
    images = []
    for one, true in zip(found, truths, strict=True):
        overlaps = mask_overlaps(one.masks, true.masks, true.boxes.crowd)
        shared = Shared(overlaps, mask_areas(one.masks), mask_areas(true.masks))
        images.append(match_objects(one.boxes[1:], true.boxes[1:], shared, classes))
    return BoxSet.of(images, classes)


def assert_equal(boxes, coco):
    """Precision and recall of each class, threshold and size, and all means, are those of pycocotools."""
    for place, size in enumerate(SIZES):
        own = average_precision(boxes, size=size)
        precision = coco.eval["precision"][:, :, :, place, 2]  # thresholds, recalls, classes
        expected = np.where(precision[:, 0] < 0, np.nan, precision.mean(1)).T
        np.testing.assert_allclose(own.precision[0], expected, rtol=0, atol=1e-9)
        recall = coco.eval["recall"][:, :, place, 2].T
        np.testing.assert_allclose(own.recall[0], np.where(recall < 0, np.nan, recall), rtol=0, atol=1e-9)
    whole = average_precision(boxes)
    told = [float(whole.mean()[0]), float(whole.at(0)[0]), float(whole.at(5)[0])]
    told += [float(average_precision(boxes, size=size).mean()[0]) for size in list(SIZES)[1:]]
    np.testing.assert_allclose(np.nan_to_num(told, nan=-1.0), coco.stats[:6], rtol=0, atol=1e-9)
    assert float(whole.mean_recall()[0]) == pytest.approx(coco.stats[8], abs=1e-9)


@pytest.mark.parametrize("crowded", [False, True], ids=["few boxes", "over 100 boxes"])
@pytest.mark.parametrize("seed", range(6))
def test_every_number_equals_pycocotools(seed, crowded):
    truths, found = pictures(seed, crowded=crowded)
    assert_equal(matched(truths, found, 4), coco_eval(truths, found, 4))


@pytest.mark.parametrize("crowded", [False, True], ids=["few masks", "over 100 masks"])
@pytest.mark.parametrize("seed", range(3))
def test_every_number_of_masks_equals_pycocotools(seed, crowded):
    truths, found = mask_pictures(seed, crowded=crowded)
    boxes = matched_masks(truths, found, 4)
    assert_equal(boxes, coco_eval(truths, found, 4, "segm"))
    plain = average_precision(matched([t.boxes for t in truths], [f.boxes for f in found], 4))
    assert average_precision(boxes).mean()[0] != plain.mean()[0]


def test_the_cases_are_not_empty():
    truths, found = pictures(0, crowded=True)
    boxes = matched(truths, found, 4)
    assert max(len(one.xyxy) for one in found) > 100
    assert boxes.ranks.max() >= 100
    assert any(one.crowd.any() for one in truths)
    assert boxes.ignored.any()
    assert any(not len(one.xyxy) for one in truths)
    assert 0.05 < average_precision(boxes).mean()[0] < 0.95


def test_a_class_without_truth_is_left_out():
    truths, found = pictures(1)
    own = average_precision(matched(truths, found, 4))
    assert np.isnan(own.precision[0, 3]).all()
    assert own.mean()[0] == pytest.approx(own.precision[0, :3].mean())


def test_a_bootstrap_sample_is_the_score_of_its_pictures():
    """Weights are the same as picking pictures; a picture drawn twice counts twice."""
    truths, found = pictures(2, count=9)
    rng = np.random.default_rng(0)
    found = [one._replace(scores=np.sort(rng.random(len(one.scores)))[::-1]) for one in found]
    boxes = matched(truths, found, 4)
    counts = np.array(
        [[1] * 9, [0, 2, 1, 0, 3, 1, 1, 0, 1], [9, *[0] * 8], [0, 0, 0, 0, 9, 0, 0, 0, 0]], float
    )
    for size in SIZES:
        drawn = average_precision(boxes, counts, size)
        for row, count in enumerate(counts.astype(int)):
            order = np.repeat(np.arange(9), count)
            alone = average_precision(
                matched([truths[i] for i in order], [found[i] for i in order], 4), size=size
            )
            np.testing.assert_allclose(drawn.precision[row], alone.precision[0], atol=1e-12)
            np.testing.assert_allclose(drawn.recall[row], alone.recall[0], atol=1e-12)
    plain = average_precision(boxes)
    assert np.array_equal(average_precision(boxes, counts[:1]).precision, plain.precision, equal_nan=True)


def test_draws_in_pieces_are_the_draws_at_once(monkeypatch):
    truths, found = pictures(3)
    boxes = matched(truths, found, 4)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=40).astype(float)
    whole = average_precision(boxes, counts).precision
    monkeypatch.setattr("vitrail.metrics.box_ap.AT_ONCE", 100)
    assert np.array_equal(average_precision(boxes, counts).precision, whole, equal_nan=True)


def test_no_boxes_and_no_pictures():
    empty = matched([make_boxes()], [make_found()], 2)
    assert np.isnan(average_precision(empty).mean()).all()
    assert np.isnan(average_precision(BoxSet.of([], 2)).mean()).all()
    missed = matched([make_boxes([[0, 0, 9, 9]], [1])], [make_found()], 2)
    assert average_precision(missed).mean()[0] == 0.0
    assert average_precision(missed).mean_recall()[0] == 0.0
