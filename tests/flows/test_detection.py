"""Detection by the command line: check, train, predict, explain, inspect, export; the same numbers everywhere."""

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
from scenes import SHAPES, boxed

from vitrail.data.labels import count
from vitrail.infer.predictor import load
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.detect.tiles import merge_tiles, tiles_of
from vitrail.training.fit import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return boxed(tmp_path_factory.mktemp("shapes") / "shapes", 120, empty=2)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A detector that was trained in half a minute."""
    options = TrainOptions(
        model="vit_digits", imgsz="48x64", weights="none", set="width=64,hidden=128,queries=12", epochs=16, batch=8,
        lr=0.001, warmup=1, augment="none", ema=0.9, drop_path=0.0, weight_decay=0.01, precision="float32",
        micro=8, val=0.2, test=0.2, device="cpu", out=str(tmp_path_factory.mktemp("runs") / "shapes"),
    )  # fmt: skip
    return train(data, options).folder


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_a_check_says_what_the_boxes_are(data, vitrail):
    told = json.loads(good(vitrail("check", data, "--json")).stdout)
    assert (told["kept"], told["classes"]) == (120, list(SHAPES))


def test_training_reports_scores_with_intervals_and_what_was_missed(run):
    report = json.loads((run / "report.json").read_text())
    assert report["task"] == "detect"
    test = report["test"]
    assert test["map50"]["value"] > 0.5
    assert test["map"]["low"] is None or test["map"]["low"] <= test["map"]["value"] <= test["map"]["high"]
    assert set(test["per_class"]) == set(SHAPES)
    assert test["max_boxes"] == 100
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("Class by class", "Confusion matrix", "missed", "invented",
                  "Scores by threshold", "Calibration", "The worst images"):  # fmt: skip
        assert words in page
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert {"queries": 12, "groups": 5}.items() <= recipe["task"]["settings"].items()
    assert 0.1 < recipe["task"]["settings"]["anchor"] < 0.4


def test_the_report_is_what_pycocotools_says_of_the_written_boxes(data, run, vitrail, tmp_path):
    """On the same images, the boxes that `predict` writes score as `eval` says, to the last digits."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ours = json.loads(good(vitrail("eval", run, data, "--json")).stdout)["test"]
    good(
        vitrail(
            "predict", run, data / "images", "--threshold", "0", "--coco", tmp_path / "found.json", "--json"
        )
    )
    found, true = (
        json.loads((tmp_path / "found.json").read_text()),
        json.loads((data / "boxes.json").read_text()),
    )
    assert [one["name"] for one in found["categories"]] == list(SHAPES)
    ids = {one["file_name"]: one["id"] for one in true["images"]}
    kinds = {one["name"]: one["id"] for one in true["categories"]}
    names = {one["id"]: one["file_name"] for one in found["images"]}
    called = {one["id"]: one["name"] for one in found["categories"]}
    answers = [
        {**one, "image_id": ids[names[one["image_id"]]], "category_id": kinds[called[one["category_id"]]]}
        for one in found["annotations"]
    ]
    for one in true["annotations"]:
        one |= {"id": one["id"] + 1, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
    truth = COCO()
    truth.dataset = true
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(answers), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert ours["map"]["value"] == pytest.approx(judge.stats[0], abs=1e-6)
    assert ours["map50"]["value"] == pytest.approx(judge.stats[1], abs=1e-6)


def test_predictions_are_drawn_and_written_as_labels(data, run, vitrail, tmp_path):
    pictures = [data / "images" / f"{number}.png" for number in (3, 4)]
    table, drawn, labels = tmp_path / "boxes.csv", tmp_path / "shown", tmp_path / "labels"
    done = good(
        vitrail("predict", run, *pictures, "--out", drawn, "--csv", table, "--yolo", labels, "--json")
    )
    answers = json.loads(done.stdout)
    assert answers[0]["width"] == 64
    assert {"class", "number", "confidence", "left", "top", "right", "bottom"} == answers[0]["boxes"][
        0
    ].keys()
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == sum(max(1, len(one["boxes"])) for one in answers)
    assert {path.name for path in drawn.iterdir()} == {"3.png", "4.png"}
    assert np.asarray(Image.open(drawn / "3.png")).std() > 0
    assert yaml.safe_load((labels / "data.yaml").read_text())["names"] == dict(enumerate(SHAPES))
    assert len((labels / "labels" / "3.txt").read_text().splitlines()) == len(answers[0]["boxes"])
    (labels / "images").mkdir()
    for picture in pictures:
        shutil.copy(picture, labels / "images")
    told = good(vitrail("check", labels)).stdout  # what is written can be read, and trained on
    assert f"{count(sum(len(one['boxes']) for one in answers), 'box', 'boxes')} on 2 images" in told


def test_a_large_image_is_predicted_in_tiles(data, run, vitrail, tmp_path):
    """Four scenes in one image: each tile is predicted as an image of its own, and the boxes are joined."""
    whole = Image.new("RGB", (128, 96))
    for place, number in enumerate((0, 1, 2, 5)):
        picture = Image.open(data / "images" / f"{number}.png")
        whole.paste(picture, (64 * (place % 2), 48 * (place // 2)))
    whole.save(tmp_path / "large.png")
    done = good(vitrail("predict", run, tmp_path / "large.png", "--tiles", "64", "--json"))
    (answer,) = json.loads(done.stdout)
    tiles = tiles_of((96, 128), 64)
    assert len(tiles) > 4
    alone = load(run).predict([whole.crop(tile) for tile in tiles])
    joined = merge_tiles([one.found for one in alone], tiles, (96, 128))
    rows = [[box[side] for side in ("left", "top", "right", "bottom")] for box in answer["boxes"]]
    np.testing.assert_allclose(rows, joined.xyxy, atol=0.01)
    assert {box[0] > 64 for box in rows} == {True, False}
    wrong = vitrail("predict", run, tmp_path / "large.png", "--tiles", "0")
    assert wrong.returncode == 1
    assert "side of a tile" in wrong.stderr


def test_a_box_is_explained_by_its_name_and_its_place(data, run, vitrail, tmp_path):
    picture = data / "images" / "3.png"
    first = json.loads(good(vitrail("predict", run, picture, "--json")).stdout)[0]["boxes"][0]
    name = f"{first['class']} #1"
    good(vitrail("explain", run, picture, "--of", name, "--method", "gradcam", "--out", tmp_path / "one"))
    corners = ",".join(f"{first[side]:.0f}" for side in ("left", "top", "right", "bottom"))
    good(
        vitrail(
            "explain",
            run,
            picture,
            "--of",
            f"{first['class']} in {corners}",
            "--method",
            "gradcam",
            "--out",
            tmp_path / "two",
        )
    )
    wrong = vitrail("explain", run, picture, "--of", "disc #77", "--out", tmp_path / "three")
    assert wrong.returncode != 0
    assert "There are: " in wrong.stderr


def test_inspect_draws_the_decoder(data, run, vitrail, tmp_path):
    out = tmp_path / "steps"
    good(vitrail("inspect", run, "--pipeline", data / "images" / "3.png", "--out", out))
    text = "".join(page.read_text(encoding="utf-8") for page in out.glob("*.html"))
    for words in ("Proposals", "Decoder", "12 queries"):
        assert words in text


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_export_answers_boxes_in_pixels_of_the_image(data, run, vitrail, tmp_path, form):
    file = tmp_path / f"boxes.{'onnx' if form == 'onnx' else 'xml'}"
    good(vitrail("export", run, "--format", form, "--out", file))
    model, exported = load(run), load(file)
    for number in (3, 7):
        picture = Image.open(data / "images" / f"{number}.png").resize((137, 99))
        (ours,), (theirs,) = model.predict(picture), exported.predict(picture)
        assert [row["class"] for row in ours.rows()] == [row["class"] for row in theirs.rows()]
        np.testing.assert_allclose(ours.found.xyxy, theirs.found.xyxy, atol=0.5)
        np.testing.assert_allclose(ours.found.scores, theirs.found.scores, atol=1e-3)
        graph = exported._opened.one(np.asarray(picture))[0]
        assert graph.shape == (12, 6)
        sure = graph[graph[:, 4] >= model.task.settings.threshold]
        best = sure[sure[:, 4].argsort(descending=True)]
        np.testing.assert_allclose(best[:, :4], ours.found.xyxy, atol=0.5)
        assert best[:, 5].int().tolist() == ours.found.kinds.tolist()


def test_a_model_knows_its_classes_and_no_more(run):
    predictor = load(run)
    assert predictor.labels == SHAPES
    assert predictor.network.head.decoder.classes.out_features == len(SHAPES)


def test_killed_and_resumed_is_equal_bit_by_bit(data, tmp_path):
    # Parts are frozen at first: what has no gradient has no state of the optimiser that could be saved.
    words = "--model vit_digits --imgsz 48x64 --weights none --epochs 3 --batch 8"
    words += " --set width=32,hidden=64,queries=8,last_blocks=1,frozen=0.5"
    fixed = "--precision float32 --micro 8 --seed 3 --device cpu"
    start = [sys.executable, "-m", "vitrail.cli.main", "train"]
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    subprocess.run(
        [*start, data, *words.split(), *fixed.split(), "--out", quiet], check=True, capture_output=True
    )
    child = subprocess.Popen(
        [*start, data, *words.split(), *fixed.split(), "--out", killed],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while child.poll() is None and not (killed / "state" / "last.safetensors").is_file():
        time.sleep(0.02)
    child.kill()
    child.wait()
    subprocess.run([*start, "--resume", killed], check=True, capture_output=True)
    for name in ("state/last.safetensors", "model.safetensors"):
        first, second = load_file(quiet / name), load_file(killed / name)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
