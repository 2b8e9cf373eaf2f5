"""Average precision of boxes against pycocotools, and precision and recall by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.data.boxes import Boxes, FoundBoxes, box_areas, iou_table, make_boxes, make_found
from vitrail.metrics.box_ap import mean_of, mean_precisions, sorted_by_class, threshold_curve
from vitrail.metrics.box_confusion import Sides, confusion, doubled
from vitrail.metrics.box_matching import Answer, Objects, match

CLASSES = 4


def matches_of(found: FoundBoxes, truth: Boxes, classes: int = CLASSES):
    table = iou_table(found.xyxy, truth.xyxy, truth.crowd)
    answer = Answer(table, box_areas(found.xyxy), found.kinds, found.scores)
    return match(answer, Objects(box_areas(truth.xyxy), truth.kinds, truth.crowd), classes)


def image(draw: np.random.Generator, objects: int, answers: int) -> tuple[FoundBoxes, Boxes]:
    """Return random boxes, most answers near an object, with equal scores among them and some crowds."""
    corner, side = draw.uniform(0, 300, (objects, 2)), np.exp(draw.uniform(1.5, 5, (objects, 2)))
    true = np.concatenate([corner, corner + side], 1)
    kinds = draw.integers(0, CLASSES - 1, objects)  # the last class has no object
    crowd = draw.random(objects) < 0.15
    if objects:
        which = draw.integers(0, objects, answers)
        near = true[which] + draw.normal(0, 0.12, (answers, 4)) * np.tile(side[which], 2)
        far = np.sort(draw.uniform(0, 300, (answers, 2, 2)), 1).reshape(answers, 4)
        pick = draw.random(answers) < 0.7
        boxes = np.where(pick[:, None], near, far)
        called = np.where(
            pick & (draw.random(answers) < 0.8), kinds[which], draw.integers(0, CLASSES, answers)
        )
    else:
        boxes = np.sort(draw.uniform(0, 300, (answers, 2, 2)), 1).reshape(answers, 4)
        called = draw.integers(0, CLASSES, answers)
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:] - 1e-3), boxes[:, 2:]], 1)
    return make_found(boxes, called, draw.integers(0, 40, answers) / 40), make_boxes(true, kinds, crowd)


def coco_scores(pairs):
    """Return the stats of pycocotools: AP, AP50, AP75, small, medium, large, and AP per class."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, answers, number = COCO(), [], 0
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(CLASSES)],
    }
    for place, (found, true) in enumerate(pairs, 1):
        content["images"].append({"id": place, "width": 500, "height": 500})
        for box, kind, crowd in zip(true.xyxy, true.kinds, true.crowd, strict=True):
            number += 1
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            content["annotations"].append(
                {
                    "id": number,
                    "image_id": place,
                    "category_id": int(kind) + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                }
                | {"iscrowd": int(crowd)}
            )
        for box, kind, score in zip(found.xyxy, found.kinds, found.scores, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            answers.append(
                {"image_id": place, "category_id": int(kind) + 1, "bbox": [x, y, w, h], "score": float(score)}
            )
    truth.dataset = content
    truth.createIndex()
    run = COCOeval(truth, truth.loadRes(answers), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    precision = run.eval["precision"][:, :, :, 0, -1]  # threshold, recall, class
    each = [float(one.mean()) if (one > -1).all() else float("nan") for one in np.moveaxis(precision, 2, 0)]
    return run.stats[:6].tolist(), each


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_average_precision_is_that_of_pycocotools(seed, capsys):
    draw = np.random.default_rng(seed)
    pairs = [image(draw, int(draw.integers(0, 12)), int(draw.integers(0, 40))) for _ in range(25)]
    pairs.append(image(draw, 30, 500))  # more answers of a class than count
    matches = [matches_of(*pair) for pair in pairs]
    stats, each = coco_scores(pairs)
    ours = [mean_precisions(sorted_by_class(matches, CLASSES, area)) for area in range(4)]
    found = [
        mean_of(ours[0]), mean_of(ours[0][:, :1]), mean_of(ours[0][:, 5:6]), *(mean_of(one) for one in ours[1:])
    ]  # fmt: skip
    np.testing.assert_allclose(found, stats, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours[0].mean(1), each, rtol=0, atol=1e-9)
    assert np.isnan(each[-1])


def test_an_image_that_counts_twice_is_an_image_twice():
    draw = np.random.default_rng(5)
    pairs = [image(draw, 6, 20) for _ in range(4)]
    for found, _ in pairs:  # without equal scores, whose order would count
        found.scores[:] = np.sort(draw.random(len(found.scores)))[::-1]
    matches = [matches_of(*pair) for pair in pairs]
    once = mean_precisions(sorted_by_class(matches, CLASSES), np.array([1, 0, 1, 1]))
    np.testing.assert_allclose(
        once, mean_precisions(sorted_by_class([matches[i] for i in (0, 2, 3)], CLASSES))
    )
    every = mean_precisions(sorted_by_class(matches, CLASSES))
    np.testing.assert_array_equal(every, mean_precisions(sorted_by_class(matches, CLASSES), np.ones(4)))


def test_precision_recall_and_the_best_threshold_by_hand():
    truth = make_boxes([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1])
    found = make_found(
        [[0, 0, 10, 10], [20, 1, 30, 10], [60, 0, 70, 10], [40, 0, 50, 10]],
        [0, 0, 0, 0],
        [0.9, 0.8, 0.5, 0.3],
    )
    curve = threshold_curve(sorted_by_class([matches_of(found, truth, 2)], 2))
    np.testing.assert_allclose(curve.confidence, [0.3, 0.5, 0.8, 0.9])
    np.testing.assert_allclose(curve.precision, [2 / 4, 2 / 3, 1, 1])
    np.testing.assert_allclose(curve.recall, [2 / 3, 2 / 3, 2 / 3, 1 / 3])
    assert curve.best() == 0.8


def test_nothing_found_and_nothing_there_are_numbers():
    empty, one = make_boxes(), make_boxes([[0, 0, 9, 9]], [0])
    nothing = matches_of(make_found(), empty, 2)
    assert (
        mean_of(mean_precisions(sorted_by_class([nothing], 2))) != 0
    )  # not a number: no class has an object
    missed = matches_of(make_found(), one, 2)
    assert mean_of(mean_precisions(sorted_by_class([nothing, missed], 2))) == 0
    curve = threshold_curve(sorted_by_class([nothing, missed], 2))
    assert (len(curve.f1), curve.best()) == (0, 0.5)


def test_what_was_taken_for_what_by_hand():
    truth = make_boxes(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 90, 30]], [0, 1, 1, 0], [0, 0, 0, 1]
    )
    found = make_found(
        [[0, 0, 10, 9], [20, 0, 30, 10], [0, 50, 9, 59], [61, 1, 70, 10]], [0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6]
    )
    table = iou_table(found.xyxy, truth.xyxy, truth.crowd)
    counts = confusion(Sides(table, found.kinds, truth.kinds, truth.crowd), 2)
    assert counts.tolist() == [
        [1, 0, 0],  # found
        [1, 0, 1],  # taken for the other class; missed
        [0, 1, 0],  # invented: nothing is there; inside the crowd nothing counts
    ]
    assert doubled(iou_table(*[np.array([[0, 0, 10, 10], [0, 0, 10, 9.5], [50, 0, 60, 9]])] * 2)) == 1
