"""Panoptic segmentation by the command line: check, train, evaluate, predict, explain, export."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scenes import SHAPES, paneled

from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return paneled(tmp_path_factory.mktemp("scenes") / "scenes", 100)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A network that was trained in half a minute."""
    options = TrainOptions(
        model="vit_digits", imgsz="48x64", weights="none", set="width=64,hidden=128,queries=12,pixel_width=64",
        epochs=16, batch=8, lr=0.001, warmup=1, augment="none", ema=0.9, drop_path=0.0, weight_decay=0.01,
        precision="float32", micro=8, val=0.2, test=0.2, device="cpu",
        out=str(tmp_path_factory.mktemp("runs") / "scenes"),
    )  # fmt: skip
    return train(data, options).folder


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_a_check_tells_things_from_areas(data, vitrail):
    told = good(vitrail("check", data))
    assert "sky, ground are areas" in told.stdout
    assert set(json.loads(good(vitrail("check", data, "--json")).stdout)["classes"]) == {
        *SHAPES,
        "sky",
        "ground",
    }


def test_training_reports_panoptic_quality(run):
    report = json.loads((run / "report.json").read_text())
    assert report["task"] == "panoptic"
    assert report["test"]["pq_stuff"]["value"] > 0.8
    assert report["test"]["pq"]["low"] <= report["test"]["pq"]["value"] <= report["test"]["pq"]["high"]
    assert "PQ" in (run / "report.html").read_text(encoding="utf-8")


def test_predictions_are_written_as_coco_and_can_be_read_again(data, run, vitrail, tmp_path):
    pictures = [data / "images" / f"{number}.png" for number in (3, 4)]
    done = good(
        vitrail(
            "predict",
            run,
            *pictures,
            "--out",
            tmp_path / "shown",
            "--coco",
            tmp_path / "found.json",
            "--json",
        )
    )
    answers = json.loads(done.stdout)
    assert {one["class"] for one in answers[0]["segments"]} >= {"sky", "ground"}
    assert {"3.png", "3.panoptic.png"} <= {path.name for path in (tmp_path / "shown").iterdir()}
    content = json.loads((tmp_path / "found.json").read_text())
    assert [one["isthing"] for one in content["categories"]].count(1) == 2
    for note, answer in zip(content["annotations"], answers, strict=True):
        ids = np.asarray(Image.open(tmp_path / "found" / note["file_name"])).astype(int)
        ids = ids[..., 0] + 256 * ids[..., 1]
        assert [one["area"] for one in note["segments_info"]] == [one["pixels"] for one in answer["segments"]]
        assert [int((ids == one["id"]).sum()) for one in note["segments_info"]] == [
            one["area"] for one in note["segments_info"]
        ]
    (tmp_path / "again" / "images").mkdir(parents=True)
    for picture in pictures:
        shutil.copy(picture, tmp_path / "again" / "images")
    shutil.copy(tmp_path / "found.json", tmp_path / "again")
    shutil.copytree(tmp_path / "found", tmp_path / "again" / "found")
    assert "COCO panoptic segments" in good(vitrail("check", tmp_path / "again")).stdout
    failed = vitrail("predict", run, pictures[0], "--yolo", tmp_path / "labels")
    assert failed.returncode == 1
    assert "--coco" in failed.stderr


def test_an_area_is_explained(data, run, vitrail, tmp_path):
    good(vitrail("explain", run, data / "images" / "3.png", "--of", "sky", "--out", tmp_path / "why"))
    assert list((tmp_path / "why").iterdir())


def test_an_exported_graph_answers_as_the_model(data, run, vitrail, tmp_path):
    graph = tmp_path / "scenes.onnx"
    good(vitrail("export", run, "--out", graph))
    words = ("predict", run, data / "images" / "5.png", "--json")
    ours = json.loads(good(vitrail(*words)).stdout)
    theirs = json.loads(good(vitrail("predict", graph, data / "images" / "5.png", "--json")).stdout)
    assert [one["class"] for one in theirs[0]["segments"]] == [one["class"] for one in ours[0]["segments"]]
    for one, other in zip(theirs[0]["segments"], ours[0]["segments"], strict=True):
        assert one["pixels"] == pytest.approx(other["pixels"], abs=4)
