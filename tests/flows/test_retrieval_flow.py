"""Retrieval by the command line: check, train, resume, eval, predict, explain, export, and bad captions."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vitrail.infer.predictor import load

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "white": (250, 250, 250)}
SHAPES = ("circle", "square")
PLACES = {
    "at the top left": (3, 3),
    "at the top right": (17, 3),
    "below left": (3, 17),
    "below right": (17, 17),
}
NETWORK = (
    "--task retrieve --model vit_digits --network depth=1,width=24,heads=2,patch=8 --imgsz 32 --weights none "
    "--set embed=16,text_width=16,text_depth=1,text_heads=2,vocabulary_size=300,context=16"
)
SPEED = "--batch 32 --lr 0.005 --warmup 0 --precision float32 --device cpu"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of 64 images of one shape each, with two captions an image."""
    folder = tmp_path_factory.mktemp("shapes")
    draw = np.random.default_rng(0)
    lines = [("image", "caption")]
    for number in range(64):
        colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 2]
        image = Image.fromarray(draw.integers(90, 130, (40, 40, 3), dtype=np.uint8))
        where = list(PLACES)[number // 8 % 4]
        x, y = PLACES[where]
        pen = ImageDraw.Draw(image)
        (pen.ellipse if shape == "circle" else pen.rectangle)((x, y, x + 20, y + 20), fill=COLOURS[colour])
        image.save(folder / f"{number}.png")
        name = f"{number}.png"
        lines += [(name, f"a {colour} {shape} {where}"), (name, f"{where}: {shape} in {colour}")]
    write(folder / "pairs.csv", lines)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "shapes"


def write(path, lines):
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(lines)
    return path


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_the_whole_way(data, place, vitrail, tmp_path):
    pairs = data / "pairs.csv"
    done = good(vitrail("check", pairs))
    assert "64 images with 128 captions" in done.stdout
    assert "vitrail train" in done.stdout
    words = [*NETWORK.split(), *SPEED.split(), "--val", "0.2", "--test", "0.25", "--out", place]
    assert "recipe" in good(vitrail("train", pairs, *words, "--epochs", 2, "--dry-run")).stdout
    assert not place.exists()
    first = json.loads(good(vitrail("train", pairs, *words, "--epochs", 2, "--json")).stdout)
    assert first["task"] == "retrieve"
    assert set(first["test"]["chance"]) == {
        f"{side}_{k}" for side in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    report = json.loads(good(vitrail("train", "--resume", place, "--epochs", 40, "--json")).stdout)
    assert report["test"]["image_to_text_1"]["value"] > 2 * report["test"]["chance"]["image_to_text_1"]
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "Captions of images" in page
    assert "Images for “" in page
    card = (place / "README.md").read_text(encoding="utf-8")
    assert "zero-shot-image-classification" in card
    assert "A cosine is not a probability" in card
    assert "--micro" not in card  # the command that trains it again would be refused
    done = vitrail("train", pairs, *words[:-1], tmp_path / "cut", "--micro", 8)
    assert done.returncode == 2
    assert "compares all images of a batch" in done.stderr
    assert json.loads(good(vitrail("eval", place, "--json")).stdout)["verdict"] == report["verdict"]
    again = json.loads(good(vitrail("eval", place, pairs, "--json")).stdout)
    assert (again["test"]["pictures"], again["test"]["captions"]) == (64, 128)

    table = tmp_path / "said.csv"
    pictures = [data / f"{number}.png" for number in (0, 5)]
    answers = json.loads(good(vitrail("predict", place, *pictures, "--csv", table, "--json")).stdout)
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["caption"] for row in rows] == [one["caption"] for one in answers]
    cosines = [one["cosine"] for one in answers[0]["top"]]
    assert cosines == sorted(cosines, reverse=True)
    assert all(-1 <= cosine <= 1 for cosine in cosines)


def test_words_are_pointed_at_and_others_refused(data, place, vitrail, tmp_path):
    asked = ["--method", "relevance", "--no-check", "--out", tmp_path / "maps"]
    done = good(vitrail("explain", place, data / "0.png", "--of", "red circle", *asked, "--json"))
    assert "red circle" in done.stdout
    assert list((tmp_path / "maps").iterdir())
    done = vitrail("explain", place, data / "0.png", "--of", "红色的圆形", *asked)
    assert done.returncode == 1
    assert "Chinese letters" in done.stderr
    done = vitrail("explain", place, data / "0.png", "--of", " ", *asked)
    assert done.returncode == 1
    assert "needs a text" in done.stderr


def test_an_export_chooses_the_same_captions_and_reads_no_words(data, place, vitrail, tmp_path, monkeypatch):
    import vitrail.export.agreement as proof

    monkeypatch.setattr(proof, "LARGEST", (300, 400))  # in place of 12 megapixels
    out = tmp_path / "shapes.onnx"
    found = json.loads(good(vitrail("export", place, "--format", "onnx", "--out", out, "--json")).stdout)
    assert found["agreement"]["same_top"] + found["agreement"]["ties"] == found["agreement"]["pictures"]
    ours, theirs = load(place)(data / "3.png")[0], load(out)(data / "3.png")[0]
    assert theirs.captions[0] == ours.captions[0]
    np.testing.assert_allclose(theirs.cosines, ours.cosines, atol=1e-4)
    done = vitrail("explain", out, data / "3.png", "--of", "red circle", "--out", tmp_path / "maps")
    assert done.returncode != 0


def test_bad_captions_are_told(data, vitrail, tmp_path):
    long = " ".join(["red", "circle"] * 250)
    lines = [("image", "caption"), ("0.png", ""), ("1.png", long)]
    lines += [(f"{number}.png", f"a shape, number {number}") for number in range(2, 14)]
    lines += [(f"{number}.png", f"红色的圆形 {number}") for number in range(14, 16)]
    told = good(vitrail("check", write(data / "bad.csv", lines), "--task", "retrieve")).stdout
    assert "1 image kept out, no caption: 0.png" in told
    assert "a caption of 500 words: 1.png" in told
    assert "letters of Chinese (2)" in told
    classes = [("image", "label")] + [(f"{number}.png", SHAPES[number % 2]) for number in range(64)]
    table = write(data / "classes.csv", classes)
    assert "64 images in 2 classes" in good(vitrail("check", table)).stdout
    assert "look like names of classes" in good(vitrail("check", table, "--task", "retrieve")).stdout
    alike = write(data / "alike.csv", [("image", "caption"), *((f"{i}.png", "a photo") for i in range(9))])
    done = vitrail("train", alike, *NETWORK.split(), "--out", tmp_path / "none")
    assert done.returncode == 1
    assert "nothing to tell apart" in done.stderr
