"""Detection: what is matched and learnt, what an answer says, and what a proof compares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.manifest import Row, dump_target
from vitrail.data.preprocess import Preprocess
from vitrail.export.traced_model import InGraph
from vitrail.infer.runtimes import OfGeometry
from vitrail.layers.query_decoder import Answers
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.loss import Truths, matched, summed
from vitrail.tasks.detect.mosaic import mosaic
from vitrail.tasks.detect.task import Detect
from vitrail.tasks.set_matching import assign
from vitrail.training.loop import IMAGES, weighed

NAMES = ("platelet", "red", "white")
WHOLE = Geometry((90, 120), (48, 64), (0.0, 0.0, 90.0, 120.0))


@pytest.fixture
def task():
    return Detect(NAMES, {"threshold": 0.3})


def shares(*boxes):
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def truth(boxes, kinds, crowds=()):
    return shares(*boxes), torch.tensor(kinds, dtype=torch.int64), shares(*crowds)


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float32)[None]


def output(boxes, rows, cells=6):
    return {"boxes": shares(*boxes)[None], "logits": logits(*rows), "proposals": torch.zeros(1, cells)}


TWO = output(
    [(0.5, 0.5, 0.2, 0.2), (0.25, 0.25, 0.1, 0.2), (0.8, 0.8, 0.2, 0.1)],
    [(-5, 3, -5), (2, -5, -5), (-6, -6, -6)],
)


def test_every_object_gets_one_prediction_of_each_group():
    cost = torch.tensor([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]] * 2)
    pairs = assign(cost, 2)
    assert sorted(zip(pairs.predictions.tolist(), pairs.objects.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (3, 1),
        (4, 0),
    ]


def test_an_assignment_survives_numbers_that_are_not_finite():
    pairs = assign(torch.tensor([[float("nan"), 1.0], [2.0, float("inf")]]), 1)
    assert sorted(pairs.objects.tolist()) == [0, 1]


def test_a_right_answer_costs_less_than_a_wrong_class_a_wrong_place_and_two_answers(task):
    targets = [truth([(0.5, 0.5, 0.2, 0.2)], [1])]
    right = output([(0.5, 0.5, 0.2, 0.2), (0.2, 0.2, 0.1, 0.1)], [(-6, 6, -6), (-6, -6, -6)])
    wrong_class = {**right, "logits": logits((6, -6, -6), (-6, -6, -6))}
    wrong_place = {**right, "boxes": shares((0.3, 0.5, 0.2, 0.2), (0.2, 0.2, 0.1, 0.1))[None]}
    twice = {
        **right,
        "boxes": shares((0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 0.2, 0.2))[None],
        "logits": logits((-6, 6, -6), (-6, 6, -6)),
    }
    least, *others = (
        float(task.loss(one, targets).total) for one in (right, wrong_class, wrong_place, twice)
    )
    assert least < 0.1
    assert all(other > least + 0.5 for other in others)


def test_what_a_crowd_covers_is_not_taught_to_be_nothing(task):
    seen = output([(0.5, 0.5, 0.1, 0.1)], [(-6, 4, -6)])
    nothing = [truth([], [])]
    crowd = [truth([], [], [(0.5, 0.5, 0.4, 0.4)])]
    assert float(task.loss(seen, nothing).total) > 1
    assert float(task.loss(seen, crowd).total) == 0


def test_the_target_of_a_class_is_the_overlap():
    """A box that fits half is taught less than certainty: at its own target the gradient is zero."""
    found = Answers(shares((0.5, 0.5, 0.2, 0.2))[None], torch.zeros(1, 1, 1).requires_grad_())
    object_ = Truths(shares((0.5, 0.45, 0.2, 0.2)), torch.tensor([0]), shares())
    summed(found, [object_], matched(found, [object_], 1)).classes.backward()
    target = 0.5**0.25 * (0.15 / 0.25) ** 0.75
    assert float(found.logits.grad) == pytest.approx(0.5 - target, abs=1e-5)


def batch_of(sizes):
    draw = torch.Generator().manual_seed(2)
    made = []
    for many in sizes:
        centre, sides = (
            torch.rand(many, 2, generator=draw) * 0.6 + 0.2,
            torch.rand(many, 2, generator=draw) * 0.2 + 0.05,
        )
        made.append((torch.cat([centre, sides], 1), torch.randint(3, (many,), generator=draw), shares()))
    boxes = torch.rand(len(sizes), 8, 4, generator=draw) * 0.5 + 0.2
    return {"boxes": boxes, "logits": torch.randn(len(sizes), 8, 3, generator=draw)}, made


def test_micro_batches_have_the_loss_of_the_whole_batch(task):
    found, targets = batch_of([3, 0, 5, 1])
    whole = task.loss(found, targets).total
    counted, total = {IMAGES: 4, **task.weights(targets)}, 0.0
    for low, high in ((0, 1), (1, 2), (2, 4)):
        part = {name: value[low:high] for name, value in found.items()}
        counts = {IMAGES: high - low, **task.weights(targets[low:high])}
        total += float(weighed(task.loss(part, targets[low:high]), counts, counted))
    assert total == pytest.approx(float(whole), rel=1e-5)


def test_boxes_are_in_pixels_of_the_original_the_surest_first(task):
    (found,) = task.decode(TWO, [WHOLE], Ask())
    assert [row["class"] for row in found.rows()] == ["red", "platelet"]
    first = found.rows()[0]
    assert (first["left"], first["top"], first["right"], first["bottom"]) == (48, 36, 72, 54)
    assert first["confidence"] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-5)
    assert str(found) == "1 red, 1 platelet"
    assert found.to_dict()["width"] == 120


def test_a_threshold_leaves_out_and_a_box_never_leaves_its_image(task):
    wide = output([(0.0, 0.5, 0.5, 0.2)], [(0, 4, -5)])
    (found,) = task.decode(wide, [WHOLE], Ask(threshold=0.5))
    assert found.rows()[0]["left"] == 0
    (none,) = task.decode(wide, [WHOLE], Ask(threshold=0.999))
    assert (len(none), str(none)) == (0, "nothing found")


def test_a_query_answers_once_and_a_doubled_box_can_be_left_out(task):
    double = output([(0.5, 0.5, 0.2, 0.2), (0.51, 0.5, 0.2, 0.2)], [(2.5, 3, -5), (-5, 2, -5)])
    (found,) = task.decode(double, [WHOLE], Ask())
    assert found.labels() == ["red", "red"]
    (once,) = Detect(NAMES, {"threshold": 0.3, "nms": 0.7}).decode(double, [WHOLE], Ask())
    assert len(once) == 1
    assert once.rows()[0]["confidence"] == found.rows()[0]["confidence"]


def test_what_is_explained_is_named_by_class_and_number_or_place(task):
    (found,) = task.decode(TWO, [WHOLE], Ask())
    assert task.choices(found) == ["red #1", "platelet #1"]
    assert task.focus(found, "platelet").box == task.focus(found, "platelet #1").box
    assert task.focus(found, "white in 10,20,30,40").box == (10, 20, 30, 40)
    with pytest.raises(UnknownNameError, match="red #1, platelet #1"):
        task.focus(found, "red #2")
    with pytest.raises(UnknownNameError, match="class"):
        task.focus(found, "blue #1")
    with pytest.raises(SettingError, match="not inside this image"):
        task.focus(found, "red in 10,20,300,40")


def test_a_box_is_found_by_its_place_not_by_the_number_of_its_query(task):
    (found,) = task.decode(TWO, [WHOLE], Ask())
    asked = task.focus(found, "platelet #1")
    mixed = {name: value.flip(1) for name, value in TWO.items()}
    torch.testing.assert_close(task.score(TWO, asked), task.score(mixed, asked))
    gone = {**TWO, "boxes": TWO["boxes"].clone()}
    gone["boxes"][0, 1] = torch.tensor([0.9, 0.1, 0.05, 0.05])
    assert float(task.score(gone, asked)) < 0.01 < float(task.score(TWO, asked))
    told = task.asked(asked, TWO)
    assert told.heading == "Why this box is platelet"
    assert told.others[0].startswith("red in ") or told.others[0].startswith("white in ")


def test_a_proof_sees_a_moved_box_another_class_and_a_lost_one_but_not_the_order(task):
    mixed = {name: value.flip(1) for name, value in TWO.items()}
    assert task.agree(TWO, mixed).tolist() == [True]
    torch.testing.assert_close(task.fingerprint(TWO), task.fingerprint(mixed))
    moved = {**TWO, "boxes": TWO["boxes"] + torch.tensor([0.01, 0, 0, 0])}
    other = {**TWO, "logits": TWO["logits"][..., [1, 0, 2]]}
    lost = {**TWO, "logits": torch.where(TWO["logits"] == 2, -5.0, TWO["logits"])}
    for changed in (moved, other, lost):
        assert task.agree(TWO, changed).tolist() == [False]
        assert task.agree(changed, TWO).tolist() == [False]
        assert float((task.fingerprint(TWO) - task.fingerprint(changed)).abs().max()) > 1e-3


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_a_graph_places_boxes_where_the_package_does(task, fit):
    steps = Preprocess((48, 64), fit, 1.0 if fit != "crop" else 0.875)
    for height, width in ((90, 120), (33, 200), (301, 47)):
        ours = task.in_image(TWO, OfGeometry(steps.geometry(height, width)))["found"]
        graph = task.in_image(TWO, InGraph(steps, (height, width)))["found"]
        torch.testing.assert_close(ours, graph, rtol=0, atol=1e-3)
        boxes = ours[0, :, :4]
        assert (boxes[:, 0] >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()


def test_queries_follow_the_data(task):
    def row(many):
        one = {"class": "red", "box": [0, 0, 20, 5], "of": [50, 50]}
        return Row("a", "a.png", target=dump_target([one] * many))

    assert task.learn([row(3), row(9)], None) == {"queries": 100, "groups": 2, "anchor": 0.2}
    assert task.learn([row(3), row(90)], None) == {"queries": 180, "groups": 1, "anchor": 0.2}
    assert task.learn([row(900)], None)["queries"] == 300
    assert Detect(NAMES, {"queries": 50}).learn([row(3)], None) == {"groups": 4, "anchor": 0.2}
    assert Detect(NAMES, {"queries": 50, "groups": 1, "anchor": 0.1}).learn([row(3)], None) == {}
    assert Detect(NAMES, {"queries": 50}).unfit([row(50)]) == []
    (said,) = Detect(NAMES, {"queries": 50}).unfit([row(3), row(1200)])
    assert "1,200 objects" in said
    assert "--set queries=1200" in said


def test_a_mosaic_moves_its_boxes_with_its_images():
    """Each image is a bright square on black: mixed, every bright pixel lies in a box, and boxes are bright."""
    images, targets = torch.zeros(4, 1, 40, 60), []
    for place, (left, top) in enumerate(((0.2, 0.3), (0.5, 0.1), (0.6, 0.6), (0.1, 0.5))):
        x, y = round(left * 60), round(top * 40)
        images[place, :, y : y + 10, x : x + 12] = 1
        targets.append(truth([((x + 6) / 60, (y + 5) / 40, 0.2, 0.25)], [place % 3]))
    mixed = mosaic(Batch({"images": images}, targets, ("a", "b", "c", "d")), np.random.default_rng(0), 1.0)
    for image, (boxes, kinds, _) in zip(mixed.images, mixed.targets, strict=True):
        assert len(boxes) == len(kinds) == 4
        rest = image[0].clone()
        for cx, cy, width, height in boxes.tolist():
            rows = slice(round((cy - height / 2) * 40), round((cy + height / 2) * 40))
            cols = slice(round((cx - width / 2) * 60), round((cx + width / 2) * 60))
            assert float(image[0, rows, cols].mean()) > 0.7
            rest[max(0, rows.start - 1) : rows.stop + 1, max(0, cols.start - 1) : cols.stop + 1] = 0
        assert float(rest.max()) < 0.2
    kept = mosaic(Batch({"images": images}, targets, ("a", "b", "c", "d")), np.random.default_rng(0), 0.0)
    assert torch.equal(kept.images, images)
