"""The task of panoptic segmentation: what is learned, what an answer says, what is explained, what a proof compares."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError, SettingError, UnknownNameError
from vitrail.data.boxes import make_boxes
from vitrail.data.instances import Instances, to_runs
from vitrail.data.manifest import Row
from vitrail.data.panoptic import Scene
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.base import Ask
from vitrail.tasks.panoptic.task import Panoptic

NAMES = ("car", "sky", "person", "road")
TRUTH = Truth("panoptic", NAMES, things=("car", "person"))
SETTINGS = {
    "reach": None,
    "width": 32,
    "hidden": 64,
    "layers": 2,
    "queries": 4,
    "groups": 2,
    "pixel_width": 32,
    "least_area": 8,
}
SIZE = (48, 64)


@pytest.fixture
def task():
    return Panoptic(TRUTH, SETTINGS)


@pytest.fixture
def network(task):
    torch.manual_seed(0)
    return build_network(create_encoder("vit_digits", image=SIZE, settings={"depth": 2}), task)


def answer(sure=3.0):
    """Return an output with a person on the road, and a car that nobody is sure of."""
    masks = torch.full((1, 3, 12, 16), -4.0)
    masks[0, 0, 4:10, 2:6] = masks[0, 1, 4:10, 8:12] = 4.0
    areas = torch.zeros(1, 4, 12, 16)
    areas[0, 1, :6] = areas[0, 3, 6:] = 5.0
    boxes = torch.tensor([[0.25, 7 / 12, 0.25, 0.5], [0.625, 7 / 12, 0.25, 0.5], [0.5, 0.5, 0.1, 0.1]])
    logits = torch.tensor([[-6.0, sure], [-2.0, -6.0], [-6.0, -6.0]])
    return {
        "boxes": boxes[None], "logits": logits[None], "proposals": torch.zeros(1, 5), "masks": masks, "areas": areas
    }  # fmt: skip


WHOLE = Preprocess(SIZE, "squash").geometry(96, 128)


def scene():
    mask = np.zeros((1, 96, 128), bool)
    mask[0, 32:80, 16:48] = True
    areas = np.where(np.arange(96)[:, None] < 48, 1, 3).repeat(128, 1).astype(np.uint8)
    areas[mask[0]] = 2
    return Scene(Instances(make_boxes([[16, 32, 48, 80]], [1]), to_runs(mask)), areas)


def test_an_answer_names_things_then_areas(task):
    (found,) = task.decode(answer(), [WHOLE], Ask())
    assert str(found).startswith("1 person, ")
    rows = found.rows()
    assert [(row["class"], row["kind"]) for row in rows] == [
        ("person", "thing"), ("sky", "stuff"), ("road", "stuff")
    ]  # fmt: skip
    assert sum(row["pixels"] for row in rows) == 96 * 128
    assert rows[0]["pixels"] == pytest.approx(48 * 32, rel=0.1)
    assert found.to_dict()["segments"][0]["rle"]["size"] == [96, 128]
    assert task.decode(answer(sure=-3.0), [WHOLE], Ask())[0].rows()[0]["class"] == "sky"
    colours = np.asarray(Image.open(io.BytesIO(found.files()[".panoptic.png"])))
    assert (colours[..., 0] == found.found.ids).all()


def test_a_thing_is_drawn_where_it_lies(task):
    (found,) = task.decode(answer(), [WHOLE], Ask())
    drawn = np.asarray(task.render(Image.new("RGB", (128, 96)), found)).astype(int)
    scale = drawn.shape[1] // 128
    thing, road = drawn[56 * scale, 32 * scale], drawn[90 * scale, 100 * scale]
    assert np.abs(drawn[60 * scale, 28 * scale] - thing).max() < 10
    assert np.abs(thing - road).max() > 30


def test_objects_areas_and_places_can_be_explained(task):
    (found,) = task.decode(answer(), [WHOLE], Ask())
    assert task.choices(found)[0] == "person #1"
    assert set(task.choices(found)) == {"person #1", "sky", "road"}
    output = answer()
    thing = task.focus(found, "person #1")
    assert task.asked(thing, output).answer.startswith("person")
    assert float(task.score(output, thing)) > 0.5
    assert float(task.score(output, task.focus(found, "sky"))) > 0
    assert float(task.score(output, task.focus(found, "road at 10,90"))) == pytest.approx(5.0)
    with pytest.raises(UnknownNameError):
        task.focus(found, "tree")


def test_the_truth_itself_is_a_perfect_answer_to_its_evaluation(task):
    evaluation = task.evaluation()
    evaluation.update([Row("a.png", "a.png")], answer(), [scene()], [WHOLE])
    assert evaluation.scores()["pq"] > 0.85
    assert 0 <= evaluation.calibrate()["threshold"] <= 1


def test_both_parts_learn(task, network):
    view = Preprocess(SIZE, "squash").view((96, 128))
    targets = task.collate([task.transform(scene(), view)] * 2)
    output = network.train()({"images": torch.rand(2, 3, *SIZE)})
    losses = task.loss(output, targets)
    assert {
        "classes",
        "corners",
        "overlap",
        "mask_pixels",
        "mask_dice",
        "pixels",
        "dice",
    } <= losses.parts.keys()
    assert losses.parts.keys() <= task.weights(targets).keys()
    losses.total.backward()
    silent = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()]
    assert not [name for name in silent if "correction" not in name and "change" not in name], silent


def test_a_proof_notices_a_changed_area_and_a_lost_thing(task):
    one = answer()
    assert task.agree(one, answer()).all()
    assert task.fingerprint(one).shape[1] <= 4096
    lost = answer(sure=-3.0)
    other = {**answer(), "areas": answer()["areas"].flip(2)}
    for changed in (lost, other):
        assert not task.agree(one, changed).any()
        assert (task.fingerprint(one) - task.fingerprint(changed)).abs().max() > 0.01


def test_segments_are_written_as_coco_has_them(task, tmp_path):
    (found,) = task.decode(answer(), [WHOLE], Ask())
    task.write_labels("coco", tmp_path / "found.json", [("street.jpg", found)])
    content = json.loads((tmp_path / "found.json").read_text())
    assert [one["isthing"] for one in content["categories"]] == [1, 0, 1, 0]
    ids = np.asarray(Image.open(tmp_path / "found" / "street.png"))[..., 0]
    for one in content["annotations"][0]["segments_info"]:
        assert (ids == one["id"]).sum() == one["area"]
    with pytest.raises(SettingError, match="--coco"):
        task.write_labels("yolo", tmp_path, [])


@pytest.mark.parametrize("things", [(), NAMES])
def test_classes_of_one_kind_are_refused(things):
    with pytest.raises(DataError, match="things and of stuff"):
        Panoptic(Truth("panoptic", NAMES, things=things), SETTINGS)
