"""Published detectors on the command line: every verb takes their name, and a training begins with their head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import boxed

from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train
from vitrail.weights.convert import convert


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxed(tmp_path_factory.mktemp("shapes") / "shapes", 24)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that was trained for a few seconds."""
    options = TrainOptions(
        model="vit_digits", imgsz="48x64", weights="none", set="width=32,hidden=64,queries=12,groups=2,layers=2",
        epochs=3, batch=8, lr=0.001, warmup=1, augment="none", ema=0.9, drop_path=0.0, precision="float32", micro=8,
        val=0.2, test=0.2, device="cpu", out=str(tmp_path_factory.mktemp("runs") / "shapes"),
    )  # fmt: skip
    return train(data, options).folder


@pytest.fixture(scope="module")
def theirs(run: Path) -> Path:
    """The weights of this detector alone, as anybody could publish them."""
    path = run.parent / "shapes.safetensors"
    convert(run / "model.safetensors", path)
    return path


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_weights_answer_as_the_run_that_they_come_from(vitrail, data, run, theirs):
    images = [data / "images" / f"{number}.png" for number in range(3)]
    words = ("predict", theirs, *images, "--threshold", "0", "--json")
    ours = json.loads(good(vitrail("predict", run, *images, "--threshold", "0", "--json")).stdout)
    found = json.loads(good(vitrail(*words)).stdout)
    for one, other in zip(ours, found, strict=True):
        assert [box["class"] for box in one["boxes"]] == [box["class"] for box in other["boxes"]]
        assert one["boxes"][0]["confidence"] == pytest.approx(other["boxes"][0]["confidence"], abs=1e-3)


def test_scores_are_those_of_the_run(vitrail, data, run, theirs):
    ours, found = (
        json.loads(good(vitrail("eval", model, data, "--json")).stdout)["test"] for model in (run, theirs)
    )
    assert found["map50"]["value"] == pytest.approx(ours["map50"]["value"], abs=1e-3)


def test_a_box_is_explained(vitrail, data, theirs, tmp_path):
    words = (
        "explain",
        theirs,
        data / "images" / "0.png",
        "--of",
        "disc in 10,10,30,30",
        "--method",
        "gradcam",
    )
    good(vitrail(*words, "--no-check", "--out", tmp_path / "maps"))
    assert list((tmp_path / "maps").iterdir())


def test_a_training_names_what_it_took(vitrail, data, theirs, tmp_path):
    done = good(
        vitrail("train", data, "--weights", theirs, "--epochs", 1, "--batch", 8, "--imgsz", "48x64", "--out",
                tmp_path / "run", "precision=float32", "--set", "queries=12")
    )  # fmt: skip
    assert "head of shapes: " in done.stderr
    assert "2 classes by name (disc, square)" in done.stderr
    plan = good(
        vitrail("train", data, "--weights", theirs, "--imgsz", "48x64", "--dry-run", "--set", "queries=12")
    )
    line = next(line for line in plan.stdout.splitlines() if line.startswith("  the weights"))
    assert "settings.width 32" in line
