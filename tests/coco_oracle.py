"""Pictures of random boxes and masks, and what pycocotools finds for them."""

from __future__ import annotations

import contextlib
import io

import numpy as np

from vitrail.data.boxes import make_boxes, make_found
from vitrail.data.instances import FoundInstances, Instances, mask_areas, to_runs

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


def mask_pictures(seed, **options):
    """Return true and predicted objects of pictures: the ellipse in each box, and each third one with a hole."""
    truths, found = pictures(seed, **options)
    return (
        [Instances(one, ellipses(one.xyxy)) for one in truths],
        [FoundInstances(one, ellipses(one.xyxy)) for one in found],
    )


def ellipses(xyxy):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    masks = []
    for left, top, right, bottom in xyxy:
        middle, half = ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)
        far = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2
        masks.append((far <= 1) & ((far > 0.2) | (int(left + top) % 3 > 0)))
    return to_runs(np.array(masks, bool).reshape(-1, SIDE, SIDE))


def coco_eval(truths, found, classes, kind="bbox"):
    """Return pycocotools' evaluation of boxes, or of masks ("segm"), after `accumulate` and `summarize`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    places = [*range(len(truths))]
    entries = [entry for number in places for entry in _true(number, truths[number])]
    answers = [answer for number in places for answer in _found(number, found[number])]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in places],
            "annotations": [{**entry, "id": place + 1} for place, entry in enumerate(entries)],
            "categories": [{"id": i} for i in range(classes)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(answers), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _true(number, true):
    boxes = true.boxes if isinstance(true, Instances) else true
    for place, (box, kind, crowd) in enumerate(zip(boxes.xyxy, boxes.kinds, boxes.crowd, strict=True)):
        flat = [*box[:2], *(box[2:] - box[:2])]
        entry = {"image_id": number, "category_id": int(kind), "bbox": flat,
                 "area": flat[2] * flat[3], "iscrowd": int(crowd)}  # fmt: skip
        if isinstance(true, Instances):
            mask = true.masks[place]
            entry |= {"segmentation": mask.coco(), "area": float(mask_areas([mask])[0])}
        yield entry


def _found(number, one):
    boxes = one.boxes if isinstance(one, FoundInstances) else one
    for place, (box, kind, score) in enumerate(zip(boxes.xyxy, boxes.kinds, boxes.scores, strict=True)):
        answer = {"image_id": number, "category_id": int(kind), "score": float(score)}
        flat = [*box[:2], *(box[2:] - box[:2])]
        yield answer | (
            {"segmentation": one.masks[place].coco()} if isinstance(one, FoundInstances) else {"bbox": flat}
        )
