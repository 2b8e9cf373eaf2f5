"""Learning curves by command: heads on features, full trainings, what is said, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scenes import folder

from vitrail.models.factory import build, config_of
from vitrail.studies.learning_curves import stratified
from vitrail.studies.model_choice import choices
from vitrail.training.feature_cache import Frozen
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    config = config_of("vit_digits")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    _write_own(Pretrained("tiny", config, build(config).state_dict(), {}, "vitrail"), path)
    return path


@pytest.fixture(scope="session")
def many_digits(some_digits):
    """Seventy images each of four digits: more than five a class at the smallest size."""
    return some_digits("0123", 70)


def test_a_curve_is_printed_drawn_and_told_to_programs(vitrail, many_digits, weights, tmp_path, monkeypatch):
    page = tmp_path / "curve.html"
    done = vitrail("curve", many_digits, "--models", weights, "--imgsz", "32", "--html", page)
    assert done.returncode == 0, done.stderr
    assert "lowest – highest" in done.stdout
    assert "twice the images (" in done.stdout
    assert "points (80 % sure)" in done.stdout
    assert "You need" not in done.stdout
    text = page.read_text()
    assert text.count("data:image/png;base64,") >= 1
    assert "class by class" in text
    assert str(tmp_path) not in text

    computed = []
    monkeypatch.setattr(Frozen, "compute", lambda *words: computed.append(words))
    again = vitrail("curve", many_digits, "--models", f"vit_digits={weights}", "--imgsz", "32", "--json")
    assert again.returncode == 0, again.stderr
    assert not computed, "features that are known are not computed again"
    found = json.loads(again.stdout)["curves"][0]
    assert found["model"] == "vit_digits"
    assert [len(one["redraws"]) for one in found["points"]] == [3, 3, 3, 1]
    images = [one["images"] for one in found["points"]]
    assert images[-1] + found["tested"] == 280
    assert images[0] == pytest.approx(images[-1] / 10, abs=3)
    gain = found["forecast"]["gain_from_twice"]
    assert gain["low"] <= gain["middle"] <= gain["high"]
    assert set(found["classes"]) == set("0123")
    assert found["says"][0] in done.stdout


def test_few_images_a_class_are_scored_but_not_fitted(vitrail, digits, weights):
    done = vitrail("curve", digits, "--models", weights, "--imgsz", "32", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["curves"][0]
    assert found["forecast"] is None
    assert "5 images a class" in found["why"]
    assert found["says"] == [f"Nothing is foretold: {found['why']}. Add images, then ask again."]
    assert len(found["points"]) >= 3


def test_several_labels_count_where_all_are_right(vitrail, pairs, weights):
    done = vitrail("curve", pairs, "--models", weights, "--imgsz", "32", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["curves"][0]
    assert found["score"] == "exactly right"
    assert found["classes"] == {}
    assert found["forecast"]["gain_from_twice"]["high"] > -1


def test_masks_count_by_their_patches(vitrail, weights, tmp_path):
    data = folder(tmp_path / "street", 50)
    done = vitrail("curve", data, "--models", weights, "--imgsz", "32", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["curves"][0]
    assert found["score"] == "share of patches"
    assert found["classes"] == {}
    assert found["points"][-1]["score"] > 0.6, "most of an image is ground"
    assert found["forecast"] is not None


def test_full_trainings_at_half_and_all_say_what_two_points_say(vitrail, digits, tmp_path):
    words = ["--models", "vit_digits", "--tune", "scratch", "--epochs", "1", "--imgsz", "32"]
    done = vitrail("curve", digits, *words, "--json", "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["trainings"][0]
    assert found["half"]["images"] == pytest.approx(found["all"]["images"] / 2, abs=2)
    gain = found["gain_from_half_to_all"]
    assert found["most_from_twice"] == pytest.approx(max(0.0, gain["high"]), abs=1e-6)
    assert found["says"][-1].startswith("twice the images: +0.0 to +")
    assert "--tune scratch" in (tmp_path / "page.html").read_text()
    assert (tmp_path / found["all"]["run"] / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "Name a folder"),
        (["nowhere"], 1, "nowhere does not exist"),
        (["digits", "--models", "vit_s61"], 1, "vit_s16"),
        (["digits", "--models", ","], 2, "names no network"),
        (["digits", "--models", "gone/x.safetensors"], 1, "gone/x.safetensors"),
        (["digits", "--models", "vit_s16,resnet50", "--weights", "auto"], 2, "NAME=WEIGHTS"),
        (["digits", "--time", "5m"], 2, "--tune full"),
        (["digits", "--weights", "none"], 2, "--tune scratch"),
        (["digits", "--models", "vit_s16", "--html", "/dev/null/page.html"], 1, "/dev/null"),
    ],
)
def test_what_cannot_be_is_refused_by_name(vitrail, words, code, told):
    done = vitrail("curve", *words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert done.stdout == ""


def test_one_class_and_a_handful_have_no_curve(vitrail, some_digits, weights):
    one = vitrail("curve", some_digits("7", 12), "--models", weights)
    assert one.returncode == 1
    assert "one class" in one.stderr
    few = vitrail("curve", some_digits("01", 4), "--models", weights)
    assert few.returncode == 1
    assert "too few" in few.stderr


def test_help_names_the_options(vitrail):
    page = vitrail("curve", "--help").stdout
    for word in ("--models", "--tune", "--html", "--groups", "--imgsz"):
        assert word in page


def test_networks_are_named_in_three_ways(tmp_path):
    file = tmp_path / "some.safetensors"
    file.touch()
    found = choices(f"vit_s16, resnet50={file},{file}", None)
    assert [(one.model, one.weights) for one in found] == [
        ("vit_s16", "auto"), ("resnet50", str(file)), (None, str(file)),
    ]  # fmt: skip
    assert choices("vit_s16", "x")[0].weights == "x"
    assert choices(None, None)[0].model is None


def test_redraws_keep_groups_whole_and_classes_even():
    strata = np.repeat([0, 1, 2], [120, 60, 6])
    groups = np.arange(186) // 3
    drawn = stratified(strata, groups, 0.25, np.random.default_rng(0))
    counts = np.bincount(strata[drawn], minlength=3)
    assert counts.tolist() == pytest.approx([30, 15, 3], abs=3)
    assert (np.bincount(groups[drawn])[np.unique(groups[drawn])] == 3).all()
    other = stratified(strata, groups, 0.25, np.random.default_rng(1))
    assert set(other) != set(drawn)
    assert len(stratified(strata, groups, 1.0, np.random.default_rng(0))) == 186
