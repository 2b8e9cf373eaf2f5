"""A training on captions that begins with another one keeps its words: their numbers mean what they meant."""

from __future__ import annotations

import pytest
from PIL import Image

from vitrail.infer.predictor import Predictor


def pairs(folder, word):
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 90, 200 - 15 * number)).save(folder / f"{number}.png")
    lines = [f"{number}.png,{word} of number {number}" for number in range(12)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines]))
    return folder / "pairs.csv"


def test_the_vocabulary_of_the_weights_stays(vitrail, tmp_path):
    pytest.importorskip("tokenizers")
    sizes = ("--set", "embed=16,text_width=32,text_depth=1,text_heads=2,vocabulary_size=300")
    words = ("--task", "retrieve", "--epochs", 1, "--batch", 4)
    first, again = tmp_path / "first", tmp_path / "again"
    done = vitrail(
        "train", pairs(tmp_path / "a", "a colour"), "--model", "clip_digits", "--weights", "none", *words, *sizes,
        "--out", first,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    other = pairs(tmp_path / "b", "one of those pictures")
    done = vitrail("train", other, "--weights", first, "--tune", "full", *words, "--out", again)
    assert done.returncode == 0, done.stderr
    old, new = (Predictor(run / "model.safetensors").task for run in (first, again))
    assert new.vocabulary == old.vocabulary
    assert new.settings.text_width == 32
