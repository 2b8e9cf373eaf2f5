"""Instances: what a mask is made of, what is learnt, what an answer says and writes, and what a proof compares."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.batch import Batch
from vitrail.data.boxes import make_boxes, make_found
from vitrail.data.instances import (
    CELL,
    Instances,
    boxes_around,
    from_polygons,
    from_runs,
    mask_areas,
    mask_overlaps,
    to_runs,
)
from vitrail.data.layouts import sniff
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.view import points_in_input
from vitrail.layers.mask_branch import SCALE
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.mosaic import mosaic
from vitrail.tasks.detect.tiles import tiles_of
from vitrail.tasks.instances.prediction import Shapes
from vitrail.tasks.instances.targets import InstanceTargets
from vitrail.tasks.instances.task import SegmentInstances
from vitrail.training.loop import IMAGES, weighed

NAMES = ("ring", "disc", "dumbbell")
INPUT = (64, 96)
GRID = (16, 24)


@pytest.fixture
def task():
    return SegmentInstances(NAMES, {"threshold": 0.3, "mask_weight": 1, "reach": None})


def round_(centre, radius, size, hole=0.0):
    """Return a disc (x, y, radius in pixels), or a ring with a hole of this radius: (height, width)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    far = np.hypot(x - centre[0], y - centre[1])
    return (far < radius) & (far >= hole)


def ring(size=(60, 80)):
    return round_((30, 28), 20, size, hole=9)


def two_pieces(size=(60, 80)):
    return round_((20, 30), 9, size) | round_((60, 22), 11, size)


# Network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    task = SegmentInstances(NAMES, {"width": 32, "layers": 2, "hidden": 37, "queries": 5, "groups": 3})
    encoder = create_encoder("vit_digits", image=(48, 64), settings={"depth": 2})
    return build_network(encoder, task)


def test_a_mask_is_the_product_of_the_factors_of_the_last_layer(network):
    """The first group of queries in training is the only one of prediction, and its masks are the same."""
    draw = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 48, 64, generator=draw)
    with torch.no_grad():
        learned = network.train()({"images": images})
        answered = network.eval()({"images": images})
    queries, cells = learned["train.masks.queries"], learned["train.masks.cells"]
    assert queries.shape == (2, 2, 15, 32)
    assert cells.shape == (2, 2, 32, 12, 16)
    product = SCALE * torch.einsum("bqd,bdyx->bqyx", queries[:, -1, :5], cells[:, -1])
    bias = learned["train.masks.bias"][:, None, None, None]
    torch.testing.assert_close(answered["masks"], product + bias, rtol=1e-4, atol=1e-5)
    assert set(answered) == {"boxes", "logits", "proposals", "masks"}


def test_without_images_a_mask_covers_what_the_map_spans(network):
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        features = network.eval().encode({"images": images})
        torch.testing.assert_close(
            network.head(features)["masks"], network.head(features, {"images": images})["masks"]
        )


# Loss


def true_masks(*masks, kinds=None, crowd=None):
    """Return the tensors of objects whose masks (row, col) are those of the cells of an input."""
    cover = np.stack(masks).astype(np.uint8) * 255
    y, x = [
        np.array([[np.flatnonzero(one.any(axis))[[0, -1]] + (0, 1)] for one in masks])[:, 0]
        for axis in (1, 0)
    ]
    rows, cols = cover.shape[1:]
    xyxy = np.stack([x[:, 0] / cols, y[:, 0] / rows, x[:, 1] / cols, y[:, 1] / rows], 1)
    boxes = make_boxes(xyxy, kinds or [0] * len(masks), crowd)
    return SegmentInstances(NAMES).collate([Instances(boxes, (), cover)])[0]


def answered(truth, *masks):
    """Return an output with the right boxes and classes of a truth, and these masks (row, col), true or false."""
    boxes, kinds = truth[:2]
    logits = torch.full((1, len(kinds), len(NAMES)), -6.0)
    logits[0, torch.arange(len(kinds)), kinds] = 6.0
    said = torch.stack([torch.from_numpy(np.where(one, 6.0, -6.0)).float() for one in masks])[None]
    return {"boxes": boxes[None], "logits": logits, "proposals": torch.zeros(1, 4), "masks": said}


@pytest.mark.parametrize("radius", [1.6, 6.0])
def test_a_right_mask_costs_less_than_a_shifted_a_wrong_and_an_empty_one(task, radius):
    """So it is for large objects, and for those of a few cells of 384."""
    disc = round_((9, 8), radius, GRID)
    truth = true_masks(disc)
    far, none = round_((18, 8), radius, GRID), np.zeros(GRID, bool)
    shifted = np.roll(disc, 1, 1)
    right, *others = (
        float(task.loss(answered(truth, one), [truth]).total) for one in (disc, shifted, far, none)
    )
    assert right < 0.3
    assert right + 0.5 < others[0] < min(others[1:])
    assert all(other > right + 2.5 for other in others[1:])


def test_boxes_and_classes_do_not_hide_what_masks_cost(task):
    disc = round_((9, 8), 4, GRID)
    truth = true_masks(disc)
    parts = task.loss(answered(truth, ~disc), [truth]).parts
    assert {"classes", "corners", "overlap", "mask_pixels", "mask_dice"} == parts.keys()
    assert float(parts["corners"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["mask_pixels"]) > 20
    half = SegmentInstances(NAMES, {"mask_weight": 0.5}).loss(answered(truth, ~disc), [truth]).parts
    assert float(half["mask_dice"]) == pytest.approx(float(parts["mask_dice"]) / 2)
    none = SegmentInstances(NAMES, {"mask_weight": 0}).loss(answered(truth, ~disc), [truth]).parts
    assert float(none["mask_pixels"]) == 0
    assert float(half["classes"]) == pytest.approx(float(parts["classes"]))


def test_a_small_object_is_not_drowned_by_its_ground(task):
    """Its cells together pull more than a tenth as hard as those of an object of fifty times their number."""
    pulls = []
    for radius in (0.8, 8.0):
        disc = round_((12, 8), radius, GRID)
        truth = true_masks(disc)
        output = answered(truth, np.zeros(GRID, bool))
        output["masks"] = torch.zeros_like(output["masks"]).requires_grad_()
        task.loss(output, [truth]).total.backward()
        pulls.append(float(-output["masks"].grad[0, 0][torch.from_numpy(disc)].sum()))
    small, large = pulls
    assert small > 0.1 * large > 0


def test_what_is_half_covered_is_taught_to_be_half(task):
    """The border of an object runs through cells: their target is the share that is covered."""
    disc = round_((9, 8), 4, GRID)
    boxes, kinds, crowds, cover = true_masks(disc)
    truth = (boxes, kinds, crowds, torch.where(cover > 0, 128, 0).to(torch.uint8))
    values = []
    for logit in (-3.0, 0.0, 3.0):
        output = answered(truth, disc)
        output["masks"] = torch.where(torch.from_numpy(disc), logit, -9.0)[None, None].float()
        values.append(float(task.loss(output, [truth]).parts["mask_pixels"]))
    assert min(values) == values[1]


def learned_batch(sizes, queries=6, groups=2, layers=2, width=8):
    """Return an output of training with factors, and truths of so many objects an image."""
    draw = torch.Generator().manual_seed(2)
    shape = (len(sizes), layers, queries * groups)

    def boxes(*many):
        centre = torch.rand(*many, 2, generator=draw) * 0.6 + 0.2
        return torch.cat([centre, torch.rand(*many, 2, generator=draw) * 0.2 + 0.05], -1)

    output = {
        "boxes": boxes(len(sizes), queries), "logits": torch.randn(len(sizes), queries, 3, generator=draw),
        "train.boxes": boxes(*shape), "train.logits": torch.randn(*shape, 3, generator=draw),
        "train.first.boxes": boxes(len(sizes), queries * groups),
        "train.first.logits": torch.randn(len(sizes), queries * groups, 3, generator=draw),
        "train.masks.queries": torch.randn(*shape, width, generator=draw),
        "train.masks.cells": torch.randn(*shape[:2], width, *GRID, generator=draw),
        "train.masks.bias": torch.full((len(sizes),), 0.3),
    }  # fmt: skip
    truths = [
        (
            boxes(many), torch.randint(3, (many,), generator=draw), torch.zeros(0, 4),
            torch.randint(256, (many, *GRID), generator=draw).to(torch.uint8),
        )
        for many in sizes
    ]  # fmt: skip
    return output, truths


def test_micro_batches_have_the_loss_of_the_whole_batch(task):
    output, truths = learned_batch([3, 0, 5, 1])
    whole = task.loss(output, truths).total
    counted, total = {IMAGES: 4, **task.weights(truths)}, 0.0
    for low, high in ((0, 1), (1, 2), (2, 4)):
        part = {name: value[low:high] for name, value in output.items()}
        counts = {IMAGES: high - low, **task.weights(truths[low:high])}
        total += float(weighed(task.loss(part, truths[low:high]), counts, counted))
    assert total == pytest.approx(float(whole), rel=1e-5)


def test_a_batch_without_objects_has_a_loss_and_a_gradient(task):
    output, truths = learned_batch([0, 0])
    output["train.masks.queries"].requires_grad_()
    output["train.logits"].requires_grad_()
    losses = task.loss(output, truths)
    losses.total.backward()
    assert [losses.parts[name].item() for name in ("mask_dice", "mask_pixels")] == [0, 0]
    assert bool(torch.isfinite(losses.total))
    assert float(output["train.logits"].grad.abs().max()) > 0


def test_a_crowd_has_no_mask_to_learn_and_what_it_covers_is_not_nothing(task):
    disc, many = round_((5, 8), 3, GRID), round_((17, 8), 5, GRID)
    both = true_masks(disc, many, crowd=[False, True])
    boxes, kinds, crowds, cover = both
    assert (len(boxes), len(kinds), len(crowds), len(cover)) == (1, 1, 1, 1)
    output = answered(true_masks(disc, many), disc, many)
    alone = true_masks(disc)
    assert float(task.loss(output, [both]).total) < 0.2
    assert float(task.loss(output, [alone]).total) > 1


def test_a_mosaic_moves_masks_with_boxes():
    """In each mixed input what is covered is what is bright, and lies in the box."""
    images, targets = torch.zeros(4, 1, *INPUT), []
    for place, centre in enumerate(((6, 5), (15, 4), (16, 11), (5, 9))):
        disc = round_(centre, 3.5, GRID)
        images[place, 0] = torch.from_numpy(np.kron(disc, np.ones((CELL, CELL)))).float()
        targets.append(true_masks(disc, kinds=[place % 3]))
    batch = Batch({"images": images}, targets, ("a", "b", "c", "d"))
    mixed = mosaic(batch, np.random.default_rng(0), 1.0)
    for image, (boxes, kinds, crowds, cover) in zip(mixed.images, mixed.targets, strict=True):
        assert (len(boxes), len(kinds), len(crowds), tuple(cover.shape)) == (4, 4, 0, (4, *GRID))
        bright = torch.nn.functional.avg_pool2d(image[None], CELL)[0, 0]
        covered = cover.float().sum(0) / 255
        assert float((bright - covered).abs().mean()) < 0.01
        for one, box in zip(cover, boxes, strict=True):
            rows, cols = (one > 40).nonzero(as_tuple=True)
            x, y = (cols.float().mean() + 0.5) / GRID[1], (rows.float().mean() + 0.5) / GRID[0]
            assert abs(float(x - box[0])) * GRID[1] < 0.5
            assert abs(float(y - box[1])) * GRID[0] < 0.5


# Answers


def seen(geometry, centre, radius, hole=0.0):
    """Return the logits (row, col) of a disc of the original, in the cells of its input."""
    height, width = geometry.size
    y, x = np.mgrid[: height // CELL, : width // CELL] * CELL + CELL / 2
    (middle,), (edge,) = (
        points_in_input(geometry, np.array([one], float)) for one in (centre, (centre[0] + radius, centre[1]))
    )
    scale = float(np.hypot(*(edge - middle))) / radius
    far = np.hypot(x - middle[0], y - middle[1])
    return torch.from_numpy(np.minimum(radius * scale - far, far - hole * scale if hole else np.inf)).float()


def output_of(geometry, *found):
    """Return an output with discs (centre, radius, class, logit) of the original."""
    height, width = geometry.size
    boxes, logits, masks = [], [], []
    for (x, y), radius, kind, logit in found:
        corners = points_in_input(
            geometry, np.array([[x - radius, y - radius], [x + radius, y + radius]], float)
        )
        (left, top), (right, bottom) = corners / (width, height)
        boxes.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        logits.append([logit if place == kind else -6.0 for place in range(3)])
        masks.append(seen(geometry, (x, y), radius))
    return {
        "boxes": torch.tensor(boxes).float()[None], "logits": torch.tensor(logits)[None],
        "proposals": torch.zeros(1, 6), "masks": torch.stack(masks)[None],
    }  # fmt: skip


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("shape", [(120, 180), (200, 90)])
def test_a_mask_lies_in_pixels_of_the_original(task, fit, shape):
    geometry = Preprocess((96, 96), fit).geometry(*shape)
    centre, radius = (shape[1] / 2 + 7, shape[0] / 2 - 5), 30
    (found,) = task.decode(output_of(geometry, (centre, radius, 1, 3.0)), [geometry], Ask())
    true = to_runs(round_(centre, radius, shape)[None])
    assert found.masks[0].size == shape
    assert mask_overlaps(found.masks, true, np.zeros(1, bool))[0, 0] > 0.97
    np.testing.assert_allclose(boxes_around(found.masks), found.found.xyxy, atol=2)


def test_a_squashed_mask_is_stretched_back(task):
    geometry = Preprocess((96, 96), "squash").geometry(80, 240)
    y, x = np.mgrid[:24, :24] * 4 + 2.0
    there = torch.from_numpy(np.where((x > 24) & (x < 72) & (y > 48), 5.0, -5.0)).float()
    output = output_of(geometry, ((120, 60), 20, 0, 3.0)) | {"masks": there[None, None]}
    (found,) = task.decode(output, [geometry], Ask())
    np.testing.assert_allclose(boxes_around(found.masks), [[60, 40, 180, 80]], atol=1.01)
    assert mask_areas(found.masks)[0] == pytest.approx(120 * 40, rel=0.02)


TWO = [((40, 40), 20, 1, 3.0), ((100, 60), 25, 0, 1.0)]
STEPS = Preprocess((96, 128), "pad")
WHERE = STEPS.geometry(96, 128)


def test_an_answer_says_classes_boxes_areas_run_lengths_and_polygons(task):
    (found,) = task.decode(output_of(WHERE, *TWO), [WHERE], Ask())
    assert [row["class"] for row in found.rows()] == ["disc", "ring"]
    assert tuple(found.rows()[0]) == task.columns
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["width"], told["height"], len(told["objects"])) == (128, 96, 2)
    for one, mask in zip(told["objects"], found.masks, strict=True):
        assert one["rle"] == mask.to_dict()
        assert one["area"] == mask_areas([mask])[0]
        assert from_polygons(one["polygons"], mask.size) == mask
    assert str(found) == "1 disc, 1 ring"


def test_a_threshold_leaves_out_and_a_doubled_object_can_be_left_out(task):
    output = output_of(WHERE, *TWO, ((41, 40), 20, 1, 2.0))
    (all_,) = task.decode(output, [WHERE], Ask())
    assert [len(all_), len(all_.masks)] == [3, 3]
    (sure,) = task.decode(output, [WHERE], Ask(threshold=0.8))
    assert (sure.labels(), len(sure.masks)) == (["disc", "disc"], 2)
    (none,) = task.decode(output, [WHERE], Ask(threshold=0.99))
    assert (len(none), none.masks, str(none)) == (0, (), "nothing found")
    assert none.to_dict()["objects"] == []
    assert none.label_map().max() == 0
    (once,) = SegmentInstances(NAMES, {"threshold": 0.3, "nms": 0.7, "reach": None}).decode(
        output, [WHERE], Ask()
    )
    assert once.labels() == ["disc", "ring"]
    assert [*once.masks] == [all_.masks[0], all_.masks[2]]


def test_reach_cuts_what_lies_far_from_the_box():
    output = output_of(WHERE, TWO[0])
    output["masks"][0, 0, -3:, -3:] = 5.0
    whole, cut = (
        SegmentInstances(NAMES, {"threshold": 0.3, "reach": reach}).decode(output, [WHERE], Ask())[0]
        for reach in (None, 0.2)
    )
    pixels = [from_runs(one.masks, (96, 128))[0] for one in (whole, cut)]
    assert pixels[0][-2, -2]
    assert not pixels[1][70:, 80:].any()
    assert (pixels[0] & ~pixels[1])[:64, :64].sum() == 0


def test_a_large_image_with_many_objects_needs_little_memory(task):
    """An eighth of 24 megapixels with 100 objects: what is needed beyond the image's own size is no mask for each."""
    geometry = Preprocess((256, 384), "squash").geometry(1414, 2121)
    draw = np.random.default_rng(0)
    found = [
        ((float(draw.uniform(80, 2000)), float(draw.uniform(80, 1300))), float(draw.uniform(20, 70)), 0, 3.0)
        for _ in range(100)
    ]
    output = output_of(geometry, *found)
    tracemalloc.start()
    (answer,) = task.decode(output, [geometry], Ask())
    answer.to_dict()
    files = answer.files()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(answer), len(files)) == (100, 1)
    assert peak < 8 * 1414 * 2121  # 100 masks of the image's size would be 100 bytes a pixel


# Proof


def test_a_proof_sees_a_changed_mask_but_not_the_order_of_queries(task):
    output = output_of(WHERE, *TWO)
    mixed = {name: value if name == "proposals" else value.flip(1) for name, value in output.items()}
    assert task.agree(output, mixed).tolist() == [True]
    torch.testing.assert_close(task.fingerprint(output), task.fingerprint(mixed))
    for changed in (output["masks"].roll(1, -1), -output["masks"], output["masks"] - 5):
        other = {**output, "masks": changed}
        assert task.agree(output, other).tolist() == [False]
        assert task.agree(other, output).tolist() == [False]
        assert float((task.fingerprint(output) - task.fingerprint(other)).abs().max()) > 1e-3
    hidden = {**output, "masks": output["masks"].clone(), "logits": output["logits"].clone()}
    hidden["logits"][0, 1] = -6.0
    unseen = {**hidden, "masks": hidden["masks"].clone()}
    unseen["masks"][0, 1] = 3.0  # the mask of a query that answers nothing
    assert task.agree(hidden, unseen).tolist() == [True]


# Files


def shapes(*masks, size=(60, 80), scores=None, names=NAMES):
    runs = to_runs(np.stack(masks))
    boxes = make_found(
        boxes_around(runs), [*range(len(runs))], scores or [0.9 - 0.1 * i for i in range(len(runs))]
    )
    return Shapes(boxes, names, Preprocess(size).geometry(*size), masks=runs)


def test_a_label_map_has_16_bits_and_the_best_object_on_top():
    first, second = round_((30, 30), 20, (60, 80)), round_((45, 30), 20, (60, 80))
    (content,) = shapes(first, second).files().values()
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "I;16"
        labels = np.asarray(image)
    assert ((labels == 1) == first).all()
    assert ((labels == 2) == (second & ~first)).all()
    many = np.zeros((300, 20, 20), bool)
    many.reshape(300, 400)[np.arange(300), np.arange(300)] = True
    assert shapes(*many, size=(20, 20), scores=[0.5] * 300, names=NAMES * 100).label_map().max() == 300


# pycocotools does not know how NumPy 2 copies.
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_coco_written_back_reads_in_pycocotools_to_the_very_same_pixels(task, tmp_path):
    from pycocotools.coco import COCO

    (tmp_path / "images").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "a.png")
    found = shapes(ring(), two_pieces())
    task.write_labels("coco", tmp_path / "found.json", [("images/a.png", found)])
    coco = COCO(tmp_path / "found.json")
    written = coco.loadAnns(coco.getAnnIds())
    for one, true in zip(written, (ring(), two_pieces()), strict=True):
        assert (coco.annToMask(one) == true).all()
        assert one["area"] == true.sum()
        assert one["iscrowd"] == 0
    assert [one["score"] for one in written] == found.found.scores.tolist()
    masks = read_back(tmp_path)
    assert [(one == true).all() for one, true in zip(masks, (ring(), two_pieces()), strict=True)] == [
        True,
        True,
    ]


def read_back(folder: Path):
    """Return the masks that vitrail reads of the only image of a folder."""
    layout = sniff(folder)
    (entry,) = layout.entries()
    read = InstanceTargets(layout.truth).read(Row(entry.id, entry.path, target=entry.target), layout.root)
    return from_runs(read.masks, (60, 80))


def test_yolo_written_back_covers_the_same_pixels_rings_and_pieces_too(task, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "a.png")
    task.write_labels("yolo", tmp_path, [("images/a.png", shapes(ring(), two_pieces()))])
    masks = read_back(tmp_path)
    for one, true in zip(masks, (ring(), two_pieces()), strict=True):
        assert (one & true).sum() / (one | true).sum() > 0.95


def test_an_object_cut_by_tiles_is_joined_and_nothing_is_doubled(task):
    """Each tile sees its part of a disc in the middle and of a small one; the answer has both, once."""
    size = (200, 200)
    large, small = round_((100, 95), 60, size), round_((30, 30), 14, size)
    tiles = tiles_of(size, 110)
    answers = []
    for left, top, right, bottom in tiles:
        parts = [one[top:bottom, left:right] for one in (large, small)]
        kept = [i for i, part in enumerate(parts) if part.any()]
        runs = to_runs(np.stack([parts[i] for i in kept])) if kept else ()
        boxes = make_found(boxes_around(runs), kept, [0.9 - 0.1 * i for i in kept])
        where = Preprocess((bottom - top, right - left)).geometry(bottom - top, right - left)
        answers.append(Shapes(boxes, NAMES, where, masks=runs))
    assert sum(map(len, answers)) > 2
    whole = task.join_tiles(answers, tiles, Preprocess(size).geometry(*size))
    assert whole.labels() == ["ring", "disc"]
    masks = from_runs(whole.masks, size)
    assert (masks[0] == large).all()
    assert (masks[1] == small).all()
