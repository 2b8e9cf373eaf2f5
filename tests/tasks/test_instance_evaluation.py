"""Evaluation of instances: masks and boxes equal to pycocotools, and what a report says of both."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from coco_oracle import SIDE, coco_eval, mask_pictures

from vitrail.data.boxes import make_boxes, make_found
from vitrail.data.instances import FoundInstances, Instances, boxes_around, to_runs
from vitrail.data.manifest import Row
from vitrail.tasks.instances.boundaries import boundary_ious
from vitrail.tasks.instances.evaluation import InstanceEvaluation
from vitrail.tasks.result import kept_by
from vitrail.tasks.result_file import result_from_dict, result_to_dict

LABELS = ("ant", "bee", "cow", "dodo")
COUNT = 24

pytest.importorskip("pycocotools")


def found_in(output, at):
    return output["found"]


def evaluated(truths, found, places=None, threshold=0.4, temperature=1.0):
    evaluation = InstanceEvaluation(LABELS, found_in, threshold, temperature)
    places = list(range(len(truths)) if places is None else places)
    rows = [Row(f"{i:03}.png", f"{i:03}.png", group=f"scene {i // 2}") for i in places]
    for start in range(0, len(rows), 5):
        part = places[start : start + 5]
        output = {"found": [found[i] for i in part]}
        evaluation.update(rows[start : start + 5], output, [truths[i] for i in part], [])
    return evaluation


@pytest.fixture(scope="module")
def data():
    return mask_pictures(7, count=COUNT)


@pytest.fixture(scope="module")
def whole(data):
    return evaluated(*data)


def masks_of(*windows):
    """Return masks of rectangles (top, left, bottom, right)."""
    masks = np.zeros((len(windows), SIDE, SIDE), bool)
    for mask, (top, left, bottom, right) in zip(masks, windows, strict=True):
        mask[top:bottom, left:right] = True
    return to_runs(masks)


def true_of(*windows, kinds=None, crowd=None):
    masks = masks_of(*windows)
    return Instances(make_boxes(boxes_around(masks), kinds or [0] * len(masks), crowd), masks)


def found_of(*windows, kinds=None, scores=None):
    masks = masks_of(*windows)
    scores = scores or [0.9] * len(masks)
    return FoundInstances(make_found(boxes_around(masks), kinds or [0] * len(masks), scores), masks)


def test_masks_and_boxes_equal_pycocotools(data, whole):
    masks, told = coco_eval(*data, len(LABELS), "segm"), whole.resample(np.ones(COUNT))
    names = [f"mask_{name}" for name in ("map", "map50", "map75", "map_small", "map_medium", "map_large")]
    np.testing.assert_allclose([told[name] for name in names], masks.stats[:6], rtol=0, atol=1e-9)
    assert told["mask_ar"] == pytest.approx(masks.stats[8], abs=1e-9)
    truths, found = data
    boxes = coco_eval([one.boxes for one in truths], [one.boxes for one in found], len(LABELS))
    assert (told["map"], told["map50"]) == pytest.approx(tuple(boxes.stats[:2]), abs=1e-9)
    assert told["map"] != told["mask_map"]
    scores = whole.scores()
    assert scores["pictures"] == COUNT
    assert {name: scores[name] for name in ("mask_map", "mask_map50", "map")} == {
        name: told[name] for name in ("mask_map", "mask_map50", "map")
    }


def test_the_report_has_masks_first_and_boxes_beside(data, whole):
    result = whole.result()
    assert kept_by(whole) == ("mask_map", "%", 1)
    assert next(iter(result.numbers)) == result.main == "mask_map"
    main = result.numbers["mask_map"]
    assert main.low < main.value < main.high
    headline = whole.headline()
    assert (headline.name, headline.value, headline.low) == ("mask mAP50-95", main.value, main.low)
    assert result.verdict.startswith("mask mAP50-95 ")
    columns = [column.name for column in result.tables[0].columns]
    assert columns[2] == "objects"
    assert columns[-1] == "AP50-95 of boxes"
    masks, truths = coco_eval(*data, len(LABELS), "segm"), data[0]
    for row in result.tables[0].rows:
        kind = LABELS.index(row[0])
        assert row[2] == sum(((one.boxes.kinds == kind) & ~one.boxes.crowd).sum() for one in truths)
        assert row[4].value == pytest.approx(masks.eval["precision"][:, :, kind, 0, 2].mean(), abs=1e-6)
        assert row[-1].value != row[4].value
    assert [row[0] for row in result.tables[0].rows] == ["ant", "bee", "cow"]
    assert "No image shows dodo" in result.sections[0].note
    assert "100 objects" in result.sections[0].note
    assert {"matrix", "curve", "reliability", "overlays"} <= {section.kind for section in result.sections}


def test_the_result_is_written_and_read(whole):
    result = whole.result()
    again = result_from_dict(json.loads(json.dumps(result_to_dict(result))))
    assert again.numbers == result.numbers
    assert json.loads(json.dumps(result.details)) == result.details


def test_two_halves_are_the_whole(data, whole):
    half, other = evaluated(*data, range(1, COUNT, 2)), evaluated(*data, range(0, COUNT, 2))
    half.scores()
    half.merge(pickle.loads(pickle.dumps(other)))
    assert [row.id for row in half.rows] == [row.id for row in whole.rows]
    assert half.scores() == whole.scores()
    assert half.calibrate() == whole.calibrate()
    assert half.resample(np.ones(COUNT)) == whole.resample(np.ones(COUNT))
    assert np.array_equal(half.matrix(), whole.matrix())
    for name, values in half.per_image().items():
        assert np.array_equal(values, whole.per_image()[name])


def test_no_mask_is_kept(whole):
    """What is kept of an image does not grow with its pixels."""
    assert b"Runs" not in pickle.dumps(whole.kept)


def test_right_is_what_overlaps_as_a_mask():
    """Two halves of one box are not the same object, though their boxes are equal."""
    corner = np.zeros((2, SIDE, SIDE), bool)
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = (y < 100) & (x < 100)
    corner[0], corner[1] = inside & (x + y < 110), inside & (x + y >= 88)
    box = [[0.0, 0.0, 100.0, 100.0]]
    truth = Instances(make_boxes(box, [0]), to_runs(corner[:1]))
    found = FoundInstances(make_found(box, [0], [0.9]), to_runs(corner[1:]))
    evaluation = evaluated([truth], [found])
    scores = evaluation.scores()
    assert (scores["mask_map"], scores["map"]) == pytest.approx((0, 1))
    assert evaluation.tallies().tolist() == [[0, 1, 1, 0]]


def test_quality_of_right_masks_by_hand():
    truths = [true_of((0, 0, 100, 100), (150, 150, 200, 200))]
    found = [found_of((0, 0, 100, 80), (150, 150, 200, 200), (0, 200, 50, 250), scores=[0.9, 0.8, 0.7])]
    told = evaluated(truths, found).resample(np.ones(1))
    assert told["mask_iou"] == pytest.approx((0.8 + 1) / 2)
    # The band is 7 px wide; the upper and left edges of both masks lie at the border of the image, which is no edge.
    both, truth, answer = 7 * 80, 7 * (100 + 93), 7 * (80 + 93)
    assert told["boundary_iou"] == pytest.approx((both / (truth + answer - both) + 1) / 2)
    assert math.isnan(evaluated(truths, found, threshold=0.95).resample(np.ones(1))["mask_iou"])


def test_bands_are_of_the_whole_image():
    full, empty = masks_of((0, 0, SIDE, SIDE), (5, 5, 5, 5))
    small, apart = masks_of((10, 10, 14, 14), (100, 100, 104, 104))
    assert boundary_ious([small, small, empty, small], [small, apart, empty, empty]).tolist() == [1, 0, 1, 0]
    assert boundary_ious([full], [full]).tolist() == [1]


def test_pairs_of_answers_in_one_place_are_counted():
    evaluation = evaluated(
        [true_of((10, 10, 50, 50))],
        [found_of(*[(10, 10, 50, 50)] * 4, kinds=[0, 0, 1, 0], scores=[0.9, 0.8, 0.7, 0.1])],
    )
    assert evaluation.kept["duplicates"].tolist() == [[3, 2]]


def test_a_crowd_is_neither_missed_nor_invented():
    crowd = true_of((0, 0, 200, 200), crowd=[True])
    inside = found_of((10, 10, 50, 50), (60, 60, 90, 90), (0, 210, 40, 250), scores=[0.9, 0.8, 0.7])
    assert evaluated([crowd], [inside]).tallies().tolist() == [[0, 0, 1, 0]]


def test_the_order_of_answers_is_that_of_scores():
    truths = [true_of((0, 0, 50, 50), (100, 100, 150, 150), kinds=[0, 1])]
    plain = found_of((0, 0, 50, 50), (100, 100, 150, 140), kinds=[0, 1], scores=[0.9, 0.6])
    turned = FoundInstances(plain.boxes._replace(
        xyxy=plain.boxes.xyxy[::-1], kinds=plain.boxes.kinds[::-1], scores=plain.boxes.scores[::-1]
    ), plain.masks[::-1])  # fmt: skip
    told, other = (evaluated(truths, [one]).resample(np.ones(1)) for one in (plain, turned))
    assert told == pytest.approx(other, nan_ok=True)


def test_images_without_objects_and_nothing_at_all():
    some = (10, 10, 50, 50)
    evaluation = evaluated(
        [true_of(), true_of(), true_of(some)], [found_of(), found_of(some, kinds=[1]), found_of()]
    )
    assert evaluation.per_image()["mask_map"].tolist() == [1, 0, 0]
    assert evaluation.scores() == {"mask_map": 0.0, "mask_map50": 0.0, "map": 0.0, "pictures": 3}
    assert "50 % " not in evaluation.result().verdict
    empty = InstanceEvaluation(LABELS, found_in)
    assert empty.scores() == {"mask_map": 0.0, "mask_map50": 0.0, "map": 0.0, "pictures": 0}
    assert empty.calibrate() == {"temperature": 1.0, "threshold": 0.5}
    without = evaluated([true_of()] * 3, [found_of()] * 3)
    assert "nothing can be scored" in without.result().verdict
