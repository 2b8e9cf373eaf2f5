"""Pictures of random boxes, and what pycocotools finds for them."""

from __future__ import annotations

import contextlib
import io

import numpy as np

from vitrail.data.boxes import make_boxes, make_found

SIDE = 256


def pictures(seed, count=12, classes=4, crowded=False, absent=3):
    """Return true and predicted boxes of pictures: ties, crowds, empty pictures, and a class that no truth shows."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for number in range(count):
        n = 0 if number % 5 == 4 else int(rng.integers(1, 9))
        true = corners(rng, n)
        kinds = rng.integers(0, absent, n)
        truths.append(make_boxes(true, kinds, rng.random(n) < 0.15))
        near = np.repeat(true, 3, 0) + rng.integers(-6, 7, (3 * n, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        other = corners(rng, 140 if crowded and number % 4 == 0 else int(rng.integers(0, 9)))
        boxes = np.concatenate([near, other])
        guesses = np.where(rng.random(3 * n) < 0.8, np.repeat(kinds, 3), rng.integers(0, classes, 3 * n))
        alike = np.zeros(len(other), int) if crowded else rng.integers(0, classes, len(other))
        scores = rng.integers(1, 30, len(boxes)) / 30
        found.append(make_found(boxes, np.concatenate([guesses, alike]), scores))
    return truths, found


def corners(rng, n):
    sides = np.exp(rng.uniform(np.log(8), np.log(150), (n, 2))).astype(int)
    low = (rng.random((n, 2)) * (SIDE - sides)).astype(int)
    return np.concatenate([low, low + sides], 1).astype(float)


def coco_eval(truths, found, classes):
    """Return pycocotools' evaluation of these boxes, after `accumulate` and `summarize`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    entries, answers = [], []
    for number, (true, one) in enumerate(zip(truths, found, strict=True)):
        for box, kind, crowd in zip(true.xyxy, true.kinds, true.crowd, strict=True):
            flat = [*box[:2], *(box[2:] - box[:2])]
            entries.append({"id": len(entries) + 1, "image_id": number, "category_id": int(kind), "bbox": flat,
                            "area": flat[2] * flat[3], "iscrowd": int(crowd)})  # fmt: skip
        for box, kind, score in zip(one.xyxy, one.kinds, one.scores, strict=True):
            flat = [*box[:2], *(box[2:] - box[:2])]
            answers.append(
                {"image_id": number, "category_id": int(kind), "bbox": flat, "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": entries,
            "categories": [{"id": i} for i in range(classes)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
