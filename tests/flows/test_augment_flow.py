"""vitrail augment: a generator that learned nearly nothing is refused with figures; what cannot be gated is named."""

from __future__ import annotations

import json
import shutil

import pytest

from vitrail.infer.made_files import facts_of
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train


@pytest.fixture(scope="module")
def data(some_digits, tmp_path_factory):
    """Two digits with a given split; of the digit 1, four images train."""
    source, digits = tmp_path_factory.mktemp("rare") / "digits", some_digits("01", 30)
    for name, most in (("0", 16), ("1", 4)):
        files = sorted((digits / name).iterdir())
        for split, some in (("train", files[:most]), ("val", files[16:20]), ("test", files[20:])):
            (source / split / name).mkdir(parents=True)
            for file in some:
                shutil.copy(file, source / split / name)
    return source


@pytest.fixture(scope="module")
def generator(data, tmp_path_factory):
    options = TrainOptions(
        task="generate", model="dit_digits", network="width=32,depth=1,heads=2", imgsz="16", epochs=1, batch=8,
        micro=8, set="steps=4", device="cpu", out=str(tmp_path_factory.mktemp("runs") / "generated"),
    )  # fmt: skip
    return train(data, options).folder


def test_images_of_a_generator_that_learned_nothing_are_refused(data, generator, vitrail, tmp_path):
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    done = vitrail(
        "augment", data, "--class", "1", "--with", generator, "--n", "6", "--seeds", "2", "--model", "vit_digits",
        "--weights", "none", "--imgsz", "16", "--epochs", "1", "--batch", "8", "--device", "cpu",
        "--out", tmp_path / "gated", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["admitted"] is False
    assert told["table"] is None
    assert told["says"][0].startswith("Refused")
    assert told["comparison"]["low"] <= 0 <= told["comparison"]["high"]
    assert told["comparison"]["images"] == 20
    assert len(told["comparison"]["seeds"]) == 2
    made = sorted((tmp_path / "gated" / "made" / "1").glob("1-0-0*.png"))
    assert len(made) == 6
    assert facts_of(made[0])["class"] == "1"
    assert "Are they copies?" in (tmp_path / "gated" / "augment.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before


def test_what_makes_no_images_and_unknown_classes_are_named(data, generator, trained, vitrail, tmp_path):
    alone = shutil.copy(generator / "model.safetensors", tmp_path)
    cases = (
        (trained, "1", "makes no images"),
        (generator, "8", "no class called '8'"),
        ("runs/nowhere", "1", "does not exist"),
        (alone, "1", "does not tell which images it learned from"),
    )
    for model, name, why in cases:
        done = vitrail("augment", data, "--class", name, "--with", model)
        assert done.returncode == 1
        assert why in done.stderr
    done = vitrail("augment", data, "--class", "1", "--with", generator, "--seeds", "1")
    assert done.returncode == 2
    assert "chance of one training" in done.stderr
