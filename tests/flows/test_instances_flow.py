"""Instances by the command line: check, train, predict, explain, inspect, export; the same numbers everywhere."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from scenes import RINGS, outlined

from vitrail.data.instances import from_coco, from_runs, mask_overlaps
from vitrail.infer.predictor import load
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.detect.tiles import tiles_of
from vitrail.training.fit import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return outlined(tmp_path_factory.mktemp("rings") / "rings", 120, empty=2)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A network that was trained in half a minute; so early, masks are good only near their boxes."""
    options = TrainOptions(
        model="vit_digits", imgsz="48x64", weights="none", set="width=64,hidden=128,queries=12,reach=0.1",
        task="instances", epochs=16, batch=8, lr=0.001, warmup=1, augment="none", ema=0.9, drop_path=0.0,
        weight_decay=0.01, precision="float32", micro=8, val=0.2, test=0.2, device="cpu",
        out=str(tmp_path_factory.mktemp("runs") / "rings"),
    )  # fmt: skip
    return train(data, options).folder


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_a_check_says_what_the_masks_are(data, vitrail):
    told = json.loads(good(vitrail("check", data, "--task", "instances", "--json")).stdout)
    assert (told["kept"], told["classes"]) == (120, list(RINGS))
    said = good(vitrail("check", data, "--task", "instances")).stdout
    assert "228 objects" in said
    assert "small masks" in said


def test_the_report_has_masks_first_and_boxes_beside(run):
    report = json.loads((run / "report.json").read_text())
    assert report["task"] == "instances"
    test = report["test"]
    assert test["mask_map50"]["value"] > 0.3
    assert test["mask_map"]["low"] <= test["mask_map"]["value"] <= test["mask_map"]["high"]
    assert {"map", "map50", "mask_iou", "boundary_iou"} <= test.keys()
    assert set(test["per_class"]) == set(RINGS)
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("Class by class", "Confusion matrix", "missed", "invented", "mask mAP50", "boundary IoU",
                  "Scores by threshold", "Calibration", "The worst images"):  # fmt: skip
        assert words in page


def test_the_report_is_what_pycocotools_says_of_the_written_masks(data, run, vitrail, tmp_path):
    """On the same images, the masks that `predict` writes score as `eval` says, to the last digits."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ours = json.loads(good(vitrail("eval", run, data, "--json")).stdout)["test"]
    file = tmp_path / "found.json"
    good(vitrail("predict", run, data / "images", "--threshold", "0", "--coco", file, "--json"))
    found, truth = json.loads(file.read_text()), COCO(data / "objects.json")
    assert [one["name"] for one in found["categories"]] == list(RINGS)
    ids = {one["file_name"]: one["id"] for one in truth.dataset["images"]}
    kinds = {one["name"]: one["id"] for one in truth.dataset["categories"]}
    names = {one["id"]: one["file_name"] for one in found["images"]}
    called = {one["id"]: one["name"] for one in found["categories"]}
    answers = [
        {
            "image_id": ids[names[one["image_id"]]], "category_id": kinds[called[one["category_id"]]],
            "segmentation": one["segmentation"], "score": one["score"],
        }
        for one in found["annotations"]
    ]  # fmt: skip
    judge = COCOeval(truth, truth.loadRes(answers), "segm")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert ours["mask_map"]["value"] == pytest.approx(judge.stats[0], abs=1e-6)
    assert ours["mask_map50"]["value"] == pytest.approx(judge.stats[1], abs=1e-6)


def test_predictions_are_drawn_and_written_as_labels(data, run, vitrail, tmp_path):
    pictures = [data / "images" / f"{number}.png" for number in (3, 4)]
    table, drawn, labels = tmp_path / "objects.csv", tmp_path / "shown", tmp_path / "labels"
    words = ["predict", run, *pictures, "--out", drawn, "--csv", table, "--yolo", labels, "--json"]
    answers = json.loads(good(vitrail(*words)).stdout)
    assert answers[0]["width"] == 64
    assert {"class", "number", "confidence", "left", "top", "right", "bottom", "area", "rle", "polygons"} == (
        answers[0]["objects"][0].keys()
    )
    count = sum(len(one["objects"]) for one in answers)
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == count
    assert {row["label_map"] for row in rows} <= {one["label_map"] for one in answers}
    maps = {path.name for path in drawn.iterdir()}
    assert maps == {"3.png", "4.png", "3.label_map.png", "4.label_map.png"}
    assert np.asarray(Image.open(drawn / "3.png")).std() > 0
    numbers = np.asarray(Image.open(answers[1]["label_map"]))
    first = from_runs([from_coco(answers[1]["objects"][0]["rle"])], (48, 64))[0]
    assert ((numbers == 1) == first).all()
    good(vitrail(*words))  # into the same folder again: what vitrail wrote is replaced
    assert {path.name for path in drawn.iterdir()} == maps
    assert yaml.safe_load((labels / "data.yaml").read_text())["names"] == dict(enumerate(RINGS))
    lines = (labels / "labels" / "3.txt").read_text().splitlines()
    assert len(lines) == len(answers[0]["objects"])
    assert all(len(line.split()) > 5 for line in lines)
    (labels / "images").mkdir()
    for picture in pictures:
        shutil.copy(picture, labels / "images")
    told = json.loads(good(vitrail("check", labels, "--task", "instances", "--json")).stdout)
    assert told["kept"] == 2  # what is written can be read, and trained on


def test_a_large_image_is_predicted_in_tiles(data, run, vitrail, tmp_path):
    """Four scenes in one image: each tile is predicted as an image of its own, and the masks are joined."""
    whole = Image.new("RGB", (128, 96))
    for place, number in enumerate((0, 1, 2, 5)):
        picture = Image.open(data / "images" / f"{number}.png")
        whole.paste(picture, (64 * (place % 2), 48 * (place // 2)))
    whole.save(tmp_path / "large.png")
    done = good(vitrail("predict", run, tmp_path / "large.png", "--tiles", "64", "--json"))
    (answer,) = json.loads(done.stdout)
    tiles, model = tiles_of((96, 128), 64), load(run)
    alone = model.predict([whole.crop(tile) for tile in tiles])
    where = model.preprocess.geometry(96, 128)
    joined = model.task.join_tiles(alone, tiles, where)
    masks = tuple(from_coco(one["rle"]) for one in answer["objects"])
    assert {one.size for one in masks} == {(96, 128)}
    table = mask_overlaps(joined.masks, masks, np.zeros(len(masks), bool))
    assert len(joined.masks) == len(masks) > 0
    np.testing.assert_allclose(np.diag(table), 1)


def test_an_object_is_explained_by_its_name(data, run, vitrail, tmp_path):
    picture = data / "images" / "4.png"
    first = json.loads(good(vitrail("predict", run, picture, "--json")).stdout)[0]["objects"][0]
    name = f"{first['class']} #1"
    good(vitrail("explain", run, picture, "--of", name, "--method", "gradcam", "--out", tmp_path / "one"))
    assert list((tmp_path / "one").glob("*.png"))
    wrong = vitrail("explain", run, picture, "--of", "ring #77", "--out", tmp_path / "two")
    assert wrong.returncode != 0
    assert "There are: " in wrong.stderr


def test_inspect_draws_the_decoder_and_masks(data, run, vitrail, tmp_path):
    out = tmp_path / "steps"
    good(vitrail("inspect", run, "--pipeline", data / "images" / "3.png", "--out", out))
    text = "".join(page.read_text(encoding="utf-8") for page in out.glob("*.html"))
    for words in ("Proposals", "Decoder", "Masks", "object 1"):
        assert words in text


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_export_answers_the_same_objects_and_says_how_to_place_masks(data, run, vitrail, tmp_path, form):
    file = tmp_path / f"objects.{'onnx' if form == 'onnx' else 'xml'}"
    good(vitrail("export", run, "--format", form, "--out", file))
    told = json.loads(file.with_name(f"{file.name}.json").read_text())
    words = {one["name"]: one["is"] for one in told["outputs"]}
    assert "resize the map to height × width of the image" in words["masks"]
    model, exported = load(run), load(file)
    for number in (3, 4):
        picture = Image.open(data / "images" / f"{number}.png").resize((137, 99))
        (ours,), (theirs,) = model.predict(picture), exported.predict(picture)
        assert [row["class"] for row in ours.rows()] == [row["class"] for row in theirs.rows()]
        np.testing.assert_allclose(ours.found.scores, theirs.found.scores, atol=1e-3)
        table = mask_overlaps(ours.masks, theirs.masks, np.zeros(len(ours.masks), bool))
        assert (np.diag(table)[np.diag(table) > 0] > 0.95).all()


def test_killed_and_resumed_is_equal_bit_by_bit(data, tmp_path):
    words = "--task instances --model vit_digits --imgsz 48x64 --weights none --epochs 3 --batch 8"
    words += " --set width=32,hidden=64,queries=8,last_blocks=1,frozen=0.5,mosaic=0.5"
    fixed = "--precision float32 --micro 8 --seed 3 --device cpu"
    start = [sys.executable, "-m", "vitrail.cli.main", "train"]
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    asked = [*start, data, *words.split(), *fixed.split(), "--out"]
    subprocess.run([*asked, quiet], check=True, capture_output=True)
    child = subprocess.Popen([*asked, killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and not (killed / "state" / "last.safetensors").is_file():
        time.sleep(0.02)
    child.kill()
    child.wait()
    subprocess.run([*start, "--resume", killed], check=True, capture_output=True)
    for name in ("state/last.safetensors", "model.safetensors"):
        first, second = load_file(quiet / name), load_file(killed / name)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
