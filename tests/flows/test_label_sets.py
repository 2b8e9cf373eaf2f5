"""None of these and label sets on the command line: a draft that has them, a run with too few validation images."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.far_images import far_images
from vitrail.data.manifest import Manifest
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import build, config_of
from vitrail.reports.fit_abstention import with_abstention
from vitrail.runs.model_file import read_model
from vitrail.runs.run import open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained


@pytest.fixture(scope="session")
def drafted(digits, cache, tmp_path_factory):
    """A draft of four digits on a random network."""
    folder = tmp_path_factory.mktemp("drafted")
    torch.manual_seed(0)
    config = config_of("vit_digits")
    _write_own(
        Pretrained("tiny", config, build(config).state_dict(), {}, "vitrail"), folder / "tiny.safetensors"
    )
    options = TrainOptions(weights=str(folder / "tiny.safetensors"), imgsz="32", out=str(folder / "run"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VITRAIL_CACHE", str(cache))
        return train(digits, options).folder


@pytest.fixture
def pictures(digits, tmp_path):
    """Two digits, and an image of something else."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "01":
        with Image.open(sorted((digits / name).iterdir())[0]) as digit:
            digit.save(folder / f"{name}.png")
    Image.fromarray(far_images("noise", 8)[7]).save(folder / "noise.png")
    return folder


def test_a_picture_of_something_else_is_none_of_these(vitrail, drafted, pictures, tmp_path):
    done = vitrail("predict", drafted, pictures, "--sets", "0.1", "--csv", tmp_path / "answers.csv", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["path"].rsplit("/", 1)[-1]: one for one in json.loads(done.stdout)}
    assert found["noise.png"]["none_of_these"] is True
    assert found["noise.png"]["unlike"] >= 0.95
    assert isinstance(found["0.png"]["set"], list)
    with (tmp_path / "answers.csv").open(newline="") as handle:
        table = {row["path"].rsplit("/", 1)[-1]: row for row in csv.DictReader(handle)}
    assert table["noise.png"]["none_of_these"] == "True"
    assert table["0.png"]["set"] == "|".join(found["0.png"]["set"])
    assert "promised 90 %, this file delivers" in done.stderr
    assert "held-out images that fit their classes better" in done.stderr
    plain = vitrail("predict", drafted, pictures / "noise.png")
    assert "none of these (" in plain.stdout


def test_the_page_the_card_and_eval_say_what_is_noticed(vitrail, drafted):
    report = json.loads((drafted / "report.json").read_text())["abstention"]
    assert report["reason"] == ""
    assert report["near"]["unknown"] > 0
    assert report["near"]["noticed"]["low"] <= report["near"]["noticed"]["value"]
    assert set(report["far"]) == {"digits", "noise", "textures"}
    assert not report["learned"]
    page, card = (drafted / "report.html").read_text(), (drafted / "README.md").read_text()
    for text in ("None of these", "a class left out in turn", "Label sets"):
        assert text in page
    assert "It may answer “none of these”" in card
    assert "for every image" not in card
    told = vitrail("eval", drafted).stdout
    assert "none of these: a class it never saw is noticed in" in told
    assert "label sets: promised 95 %, this file delivers" in told


def test_a_drawn_answer_says_it_too(vitrail, drafted, pictures, tmp_path):
    done = vitrail("predict", drafted, pictures / "noise.png", "--out", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    plain = vitrail("predict", drafted, pictures / "0.png", "--out", tmp_path / "drawn")
    assert plain.returncode == 0
    shapes = [np.asarray(Image.open(one)).shape for one in sorted((tmp_path / "drawn").rglob("*.png"))]
    assert len(shapes) == 2


def test_too_few_validation_images_say_so_and_promise_nothing(vitrail, trained, pictures):
    report = json.loads((trained / "report.json").read_text())["abstention"]
    assert "are too few" in report["reason"]
    assert report["sets"]["promise"] is None
    page = (trained / "report.html").read_text()
    assert "Not available: " in page
    refused = vitrail("predict", trained, pictures, "--sets", "0.05")
    assert refused.returncode != 0
    assert "need at least 19 validation images" in refused.stderr
    allowed = refused.stderr.rsplit("--sets ", 1)[1].split()[0]
    done = vitrail("predict", trained, pictures, "--sets", allowed)
    assert done.returncode == 0, done.stderr
    assert "set: " in done.stdout
    assert "none of these (" not in done.stdout


@pytest.fixture(scope="session")
def learned(some_digits, cache, tmp_path_factory):
    """A training of one epoch with enough validation images."""
    out = tmp_path_factory.mktemp("learned") / "run"
    options = TrainOptions(model="vit_digits", weights="none", epochs=1, batch=16, micro=16, out=str(out))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VITRAIL_CACHE", str(cache))
        return train(some_digits("0123", 60), options).folder


def test_a_training_fits_it_and_counts_false_alarms_on_test_images(learned):
    found = json.loads((learned / "report.json").read_text())["abstention"]
    assert found["learned"]
    assert found["pictures"] >= 19
    assert found["false_alarms"]["low"] <= found["false_alarms"]["value"] <= found["false_alarms"]["high"]
    assert "kept out" not in found["reason"]
    assert "The network itself has learned the class" in (learned / "report.html").read_text()
    header, tensors = read_model(learned / "model.safetensors")
    assert header.task["abstention"]["parts"]
    assert any(name.startswith("reader.") for name in tensors)


def test_a_fine_tune_starts_from_a_model_with_a_score(vitrail, learned, digits, tmp_path):
    words = [
        "--weights",
        learned / "model.safetensors",
        "--imgsz",
        "32",
        "--out",
        tmp_path / "tuned",
        "--dry-run",
    ]
    done = vitrail("train", digits, "--tune", "full", *words)
    assert done.returncode == 0, done.stderr


def test_a_training_image_that_is_gone_is_the_reason(learned, cache, monkeypatch):
    """A report that is made again later needs no training image for anything else."""
    monkeypatch.setenv("VITRAIL_CACHE", str(cache))
    run = open_run(learned)
    manifest = run.manifest(run.root())
    gone = manifest.rows("train")[0]._replace(path="gone.png")
    rows = [gone, *(row for row in manifest.rows() if row.id != gone.id)]
    predictor = Predictor(run.folder, "cpu")
    predictor.task.abstention = None
    kept = run.model_path.read_bytes()
    found = with_abstention(run, Manifest.of(rows, manifest.root, manifest.truth), predictor)
    run.model_path.write_bytes(kept)
    assert "gone.png" in found.task.abstention.reason
    assert found.predict(np.zeros((32, 32, 3), np.uint8))[0].none_of_these is None


def test_a_finished_run_is_not_fitted_again(vitrail, learned):
    before = (learned / "model.safetensors").read_bytes()
    again = vitrail("train", "--resume", learned)
    assert again.returncode == 0, again.stderr
    assert (learned / "model.safetensors").read_bytes() == before
