"""`vitrail compare` as a user calls it: two trainings in folds, an interruption, trained models, frozen networks."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from vitrail.models.factory import build, config_of
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained

WORDS = (
    "--models",
    "vit_digits,resnet10t",
    "--weights",
    "none",
    "--imgsz",
    "32",
    "--batch",
    "16",
)


def test_two_networks_from_scratch_to_the_page(vitrail, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.studies.compare.duel.HALVES", 0)
    out = tmp_path / "duel"
    done = vitrail("compare", digits, *WORDS, "--epochs", "2", "--rounds", "2", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = report["contestants"]
    assert {row["name"] for row in rows} == {"vit_digits", "resnet10t"}
    assert report["data"]["images"] == 80
    (pair,) = report["pairs"]
    assert pair["sentence"] in report["verdict"]
    assert all(row["parameters"] and row["latency"] and row["peak"] for row in rows)
    assert "All start from scratch" in report["verdict"][-1]
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert report["verdict"][0] in page.replace("&#39;", "'")
    assert str(tmp_path) not in page
    assert (out / "compare.md").read_text(encoding="utf-8").startswith("# Which network is better")
    assert {row["epochs"] for row in rows} == {2.0}
    gone = out / "trainings" / "vit_digits" / "round-02" / "result.json"
    gone.unlink()  # as after an interruption: this training is done again, and no other
    results = {path: path.stat().st_mtime_ns for path in out.glob("trainings/*/*/result.json")}
    again = vitrail("compare", "--resume", out, "--json")
    assert again.returncode == 0, again.stderr
    assert gone.is_file()
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert (
        json.loads(again.stdout)["pairs"][0]["difference"]
        == pair["difference"]
        == report["pairs"][0]["difference"]
    )
    moved = vitrail("compare", digits, "--resume", out)
    assert "--resume goes on with what was asked for" in moved.stderr


@pytest.fixture
def again(trained, tmp_path):
    """The same run in another folder."""
    return shutil.copytree(trained, tmp_path / "again")


def test_two_trained_models_on_the_same_images(vitrail, trained, again, tmp_path):
    few = ("--robustness", "--sample", "4", "--attacked", "2", "--epsilons", "4")
    done = vitrail("compare", "--runs", trained, again, *few, "--out", tmp_path / "x", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (pair,) = report["pairs"]
    assert pair["difference"] == 0
    assert pair["kind"] == "unknown", "twelve images on which both agree prove nothing"
    assert "McNemar's exact test" in " ".join(report["verdict"])
    assert "nothing is said of the architectures" in report["verdict"][-1]
    robustness = report["robustness"]
    first, second = robustness["models"]
    assert first["scores"] == second["scores"], "the same model, the same noise, the same patches"
    assert len(robustness["sentences"]) == 6
    assert all("Can't tell" in line for line in robustness["sentences"])
    page = (tmp_path / "x" / "compare.html").read_text(encoding="utf-8")
    for heading in (
        "How robust they are",
        "Robustness to attacks",
        "Robustness to missing patches, in numbers",
    ):
        assert heading in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "How robust they are" in (tmp_path / "x" / "compare.md").read_text(encoding="utf-8")


def test_runs_with_other_test_images_are_refused_and_the_missing_named(vitrail, trained, again, tmp_path):
    lines = (again / "manifest.csv").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if ",test," in line)
    gone = lines.pop(at).split(",")[0]
    (again / "manifest.csv").write_text("\n".join(lines) + "\n")
    done = vitrail("compare", "--runs", trained, again, "--out", tmp_path / "y")
    assert done.returncode == 1
    assert f"again was not scored on 1 of 12 images: {gone}" in done.stderr
    alone = vitrail("compare", "--runs", trained, trained / "model.safetensors", "--out", tmp_path / "z")
    assert alone.returncode == 1  # a file by itself knows no test images
    assert "model.safetensors" in alone.stderr
    once = vitrail("compare", "--runs", trained, "--out", tmp_path / "z")
    assert once.returncode == 2
    assert "two models or more" in once.stderr


@pytest.fixture
def weights(tmp_path):
    def write(name, seed):
        torch.manual_seed(seed)
        config = config_of("vit_digits")
        path = tmp_path / f"{name}.safetensors"
        _write_own(Pretrained(name, config, build(config).state_dict(), {}, "vitrail"), path)
        return path

    return write


def test_frozen_networks_are_compared_in_seconds_and_it_says_so(vitrail, digits, weights, tmp_path):
    models = f"{weights('one', 0)},{weights('two', 1)}"
    done = vitrail(
        "compare",
        digits,
        "--models",
        models,
        "--tune",
        "draft",
        "--imgsz",
        "32",
        "--out",
        tmp_path / "f",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "Only linear heads on frozen, cached features" in report["verdict"][-1]
    assert "one of where it starts" in " ".join(report["verdict"])  # one network, two weights
    assert report["rounds"] == {**report["rounds"], "kind": "folds", "number": 10}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "vit_digits"], "two networks or more"),
        (["--models", "vit_digits,vit_digitz"], "vit_digits"),
        ([], "Name the networks to compare"),
        (["--models", "vit_digits,resnet10t", "--time", "soon"], "cannot be read"),
        (["--models", "vit_digits,resnet10t", "--region", "-1"], "--region"),
        (["--models", "vit_digits,resnet10t", "--epochs", "0"], "--epochs 0"),
        (["--models", "vit_digits,resnet10t", "--rounds", "1"], "--rounds 1"),
        (["--models", "vit_digits,resnet10t", "--tune", "draft", "--time", "1m"], "--time changes nothing"),
    ],
)
def test_what_cannot_be_compared_is_refused(vitrail, digits, tmp_path, words, message):
    done = vitrail("compare", digits, *words, "--out", tmp_path / "no")
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert not (tmp_path / "no").exists()


def test_a_time_too_short_for_one_epoch_says_what_it_would_take(vitrail, digits, tmp_path):
    done = vitrail("compare", digits, *WORDS, "--time", "1s", "--out", tmp_path / "short")
    assert done.returncode == 2
    assert "1 s are too short: 2 networks of 3 trainings each" in done.stderr
    minutes = re.search(r"Give --time (\d+)m or more", done.stderr)
    assert minutes is not None
    assert 1 <= int(minutes[1]) < 60
