"""Segmentation by the command line: check, train, predict, eval, explain, export."""

from __future__ import annotations

import csv
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scenes import NAMES, folder

from vitrail.data.own_outputs import HEAD, is_figure
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import load
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("street") / "street", 14)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "street"


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_the_whole_way(data, place, vitrail, tmp_path):
    told = json.loads(good(vitrail("check", data, "--json")).stdout)
    assert (told["kept"], told["classes"]) == (14, list(NAMES))
    words = "--model vit_digits --network depth=1 --imgsz 48x64 --weights none --set width=32 --val 0.2 --test 0.2"
    fixed = "--epochs 4 --batch 4 --lr 0.004 --micro 8 --precision float32 --device cpu"
    done = good(vitrail("train", data, *words.split(), *fixed.split(), "--out", place, "--json"))
    assert f"updated after each epoch: {place / 'live.png'}" in done.stderr
    report = json.loads(done.stdout)
    assert report["task"] == "segment"
    assert report["test"]["miou"]["value"] > 0.5
    assert set(report["test"]["per_class"]) == set(NAMES)
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "The images, the worst first" in page
    assert "Most frequent mistakes" in page
    assert "Validation images at the end of the training" in page
    assert json.loads(good(vitrail("eval", place, "--json")).stdout)["verdict"] == report["verdict"]
    again = json.loads(good(vitrail("eval", place, data, "--json")).stdout)
    assert again["test"]["pictures"] == 14

    pictures = [data / "images" / f"{i}.png" for i in (3, 4)]
    table = tmp_path / "areas.csv"
    done = good(vitrail("predict", place, *pictures, "--out", tmp_path / "masks", "--csv", table, "--json"))
    answers = json.loads(done.stdout)
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert sum(int(row["pixels"]) for row in rows if row["path"] == str(pictures[0])) == 48 * 64
    assert [row["class"] for row in rows[: len(answers[0]["areas"])]] == [
        a["class"] for a in answers[0]["areas"]
    ]
    assert all(is_figure(one.read_bytes()[:HEAD]) for one in (tmp_path / "masks").iterdir())
    assert is_figure((place / "live.png").read_bytes()[:HEAD])
    with Image.open(tmp_path / "masks" / "3.mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", (64, 48))
        np.testing.assert_array_equal(np.asarray(mask), load(place)(pictures[0])[0].mask)
    assert (tmp_path / "masks" / "3.png").is_file()

    asked = ["--of", "disc", "--at", "20,20", "--method", "gradcam", "--no-check"]
    good(vitrail("explain", place, pictures[0], *asked, "--out", tmp_path / "maps"))
    assert list((tmp_path / "maps").iterdir())
    wrong = vitrail("explain", place, pictures[0], "--at", "900,2", "--out", tmp_path / "maps")
    assert wrong.returncode != 0
    assert "64 x 48" in wrong.stderr


def test_exports_answer_with_the_class_of_each_pixel(data, place, vitrail, tmp_path, monkeypatch):
    import vitrail.export.agreement as proof

    monkeypatch.setattr(proof, "LARGEST", (300, 400))  # in place of 12 megapixels
    monkeypatch.setattr(proof, "many_sizes", partial(proof.many_sizes, least=12))
    picture = data / "images" / "5.png"
    mask = load(place)(picture)[0].mask
    for format, name in (("onnx", "street.onnx"), ("openvino", "street.xml")):
        out = tmp_path / name
        found = json.loads(good(vitrail("export", place, "--format", format, "--out", out, "--json")).stdout)
        assert found["agreement"]["same_top"] + found["agreement"]["ties"] == found["agreement"]["pictures"]
        opened = load(out)
        classes = opened._opened.one(np.asarray(Image.open(picture)))[0]
        assert classes.shape == mask.shape
        assert (classes.numpy() == mask).mean() > 0.999
        np.testing.assert_array_equal(opened(picture)[0].mask, mask)


def test_what_the_command_line_refuses(data, vitrail, tmp_path):
    done = vitrail(
        "train",
        data,
        "--augment",
        "trivial",
        "--weights",
        "none",
        "--model",
        "vit_digits",
        "--out",
        tmp_path / "r",
    )
    assert done.returncode == 1
    assert "scene" in done.stderr
    done = vitrail("train", data, "--set", "head=round", "--weights", "none", "--out", tmp_path / "r")
    assert done.returncode == 2
    assert "head" in done.stderr


def test_a_draft_shows_its_answers_and_claims_nothing_it_did_not_look_for(
    data, vitrail, model_file, tmp_path, monkeypatch
):
    # Measuring steps of a fine-tune takes half a minute and bears on nothing that is looked at here.
    monkeypatch.setattr("vitrail.training.draft.full_seconds", lambda *_: (1.0, 1.0))
    task = build_task("classify", ["a", "b"], {})
    network = build_network(create_encoder("vit_digits", image=(48, 64)), task).eval()
    steps = Preprocess((48, 64), "squash", 1.0, (0.5,) * 3, (0.25,) * 3)
    weights = model_file("vit_digits", network, task, steps)
    words = f"--model vit_digits --imgsz 48x64 --weights {weights} --device cpu"
    done = good(vitrail("train", data, *words.split(), "--out", tmp_path / "draft", "--json"))
    report = json.loads(done.stdout)
    assert report["doubts"] is None
    assert "look wrong" not in done.stderr
    assert not (tmp_path / "draft" / "doubts.csv").exists()
    page = (tmp_path / "draft" / "report.html").read_text(encoding="utf-8")
    assert "Possible label errors" not in page
    assert "answers of heads that were not trained on these images" in page
    assert "the validation images" not in page
    assert page.count("mIoU ") >= 12
    assert "The best images" in page
    assert "points; this is a rough estimate" in page
    assert "chance" not in page.split("Calibration</h2>")[1].split("</section>")[0]
    told = good(vitrail("eval", tmp_path / "draft")).stdout
    assert "calibration error" in told
    assert "by chance" not in told
