"""Generation by the command line: class folders in, images of a class out; a training that is resumed is equal."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.infer.made_files import facts_of
from vitrail.infer.made_images import made_images
from vitrail.infer.predictor import Predictor
from vitrail.runs.run import open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import resume, train

NETWORK = "width=32,depth=2,heads=2"
MAKE = ("--steps", "4", "--device", "cpu")


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def options(**changed):
    usual = {
        "task": "generate", "network": NETWORK, "epochs": 4, "batch": 8, "micro": 4, "precision": "float32",
        "device": "cpu", "seed": 5,
    }  # fmt: skip
    return TrainOptions(**{**usual, **changed})


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Grey squares at the left or the right."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for number in range(40):
        draw, name = np.random.default_rng(number), ("left", "right")[number % 2]
        pixels = draw.integers(0, 60, (32, 32)).astype(np.uint8)
        top, left = draw.integers(2, 18), 2 if name == "left" else 18
        pixels[top : top + 12, left : left + 12] = draw.integers(150, 255)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return train(photos, options(out=str(tmp_path_factory.mktemp("runs") / "generated"))).folder


def test_a_run_shows_what_it_makes(run):
    assert (run / "live.png").is_file()
    result = json.loads((run / "result.json").read_text())
    assert next(one["_"] for one in result["sections"]) == "Picture"
    page = (run / "report.html").read_text()
    assert "Made images" in page
    assert "Noise taken away in one step" in page
    card = (run / "README.md").read_text()
    assert "vitrail predict model.safetensors --class left --n 16 --out made/" in card
    assert "they are no evidence" in card


def test_grey_images_are_made_in_grey(run):
    predictor = Predictor(run)
    assert predictor.preprocess.channels == 1
    assert next(made_images(predictor, "left", 1)).mode == "L"


def test_images_of_a_class_are_files_that_say_how_they_were_made(run, tmp_path, vitrail):
    out = tmp_path / "made"
    done = good(vitrail("predict", run, "--class", "left", "--n", "3", "--seed", "2", *MAKE, "--out", out))
    names = [f"left-2-000{number}.png" for number in range(3)]
    assert sorted(one.name for one in out.iterdir()) == sorted([*names, "left-2-sheet.png", "left-2.json"])
    told = json.loads((out / "left-2.json").read_text())
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert (told["model"], told["class"], told["seed"], told["steps"], told["files"]) == (
        digest,
        "left",
        2,
        4,
        names,
    )
    assert facts_of(out / names[1])["number"] == 1
    assert "3 images made" in done.stderr


def test_an_image_of_a_seed_is_the_same_however_many_are_made(run, tmp_path, vitrail):
    for folder, count in (("few", "2"), ("many", "11")):
        good(vitrail("predict", run, "--class", "right", "--n", count, *MAKE, "--out", tmp_path / folder))
    for number in range(2):
        one, other = (
            np.asarray(Image.open(tmp_path / f / f"right-0-000{number}.png")) for f in ("few", "many")
        )
        assert np.array_equal(one, other)


def test_an_image_is_changed_into_a_class_and_a_broken_one_is_told(run, photos, tmp_path, vitrail):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    source = photos / "left" / "0.png"
    words = ("predict", run, source, broken, "--class", "right", "--strength", "0.3", *MAKE, "--json")
    done = vitrail(*words, "--out", tmp_path / "made")
    assert done.returncode == 1
    made, bad = json.loads(done.stdout)
    assert (made["image"], made["strength"], len(made["files"])) == ("0.png", 0.3, 1)
    assert "broken.png" in bad["error"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--class", "lefft"), 1, "Did you mean 'left'?"),
        (("--class", "left", "--n", "0"), 2, "1 or more"),
        (("--class", "left", "--strength", "0.5"), 2, "Name an image"),
        (("--class", "left", "--sampler", "euler"), 1, "ddpm or ddim"),
        (("--class", "left", "--steps", "1"), 1, "2 to 1000"),
        (("--class", "left", "--csv", "a.csv"), 2, "--csv has no effect"),
        (("--class", "left", "--tiles", "100"), 2, "--tiles has no effect"),
        (("--n", "3"), 2, "--class NAME"),
        (("photo.jpg",), 1, "--class left --n 16"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(run, words, code, said, vitrail):
    done = vitrail("predict", run, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_others_are_kept(run, tmp_path, vitrail):
    own = tmp_path / "left-0-0000.png"
    Image.new("L", (5, 5)).save(own)
    before = own.read_bytes()
    done = vitrail("predict", run, "--class", "left", "--n", "1", *MAKE, "--out", tmp_path)
    assert done.returncode == 1
    assert "was not made by vitrail" in done.stderr
    assert own.read_bytes() == before


def test_a_model_of_another_task_makes_nothing(photos, tmp_path, vitrail):
    other = train(
        photos,
        TrainOptions(
            model="vit_digits_narrow", epochs=1, batch=8, micro=8, precision="float32", device="cpu",
            weights="none", out=str(tmp_path / "run"),
        ),
    ).folder  # fmt: skip
    done = vitrail("predict", other, "--class", "left")
    assert done.returncode == 1
    assert "makes no images" in done.stderr
    assert "--task generate" in done.stderr


def test_a_resumed_training_is_equal_bit_by_bit(photos, run, tmp_path):
    """Weights, and their average, which is what makes images."""

    def stop(event):
        if event.kind == "epoch" and event.step >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(photos, options(out=str(tmp_path / "stopped")), listeners=[stop])
    resume(tmp_path / "stopped")
    whole, again = (open_run(folder).load_state()[0] for folder in (run, tmp_path / "stopped"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
