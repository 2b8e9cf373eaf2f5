"""The parts of a comparison: rounds, times, what is equal for all, and the sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.core.errors import DataError, UnknownNameError, UsageError
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.data.prepare import prepare
from vitrail.metrics.paired_difference import Difference, over_seeds, verdict
from vitrail.models.factory import build, config_of
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.compare.contestants import augmentation_differs, augmentation_of, named, planned
from vitrail.studies.compare.design import Cost, halved, is_given, rounds, share_out
from vitrail.studies.compare.outcome import SharedImages, Side, matched, pairs, said, scored
from vitrail.studies.compare.sentences import credit, markdown_of, pair_lines
from vitrail.studies.compare.worker import Job, main
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained


@pytest.fixture
def prepared(some_digits):
    return prepare(some_digits("0123", 20))


def test_every_image_is_tested_once_and_no_round_learns_from_what_it_tests(prepared):
    drawn = rounds(prepared, 5, seed=0)
    tests = [row.id for manifest in drawn.manifests for row in manifest.rows(TEST)]
    assert sorted(tests) == sorted(row.id for row in prepared.manifest.rows())
    for manifest in drawn.manifests:
        splits = {split: {row.id for row in manifest.rows(split)} for split in (TRAIN, VAL, TEST)}
        assert sum(map(len, splits.values())) == len(set().union(*splits.values())) == 80
        classes = [row.target for row in manifest.rows(TEST)]
        assert {classes.count(name) for name in set(classes)} == {4}
    assert drawn.trained == 64
    other = rounds(prepared, 5, seed=1)
    assert {row.id for row in other.manifests[0].rows(TEST)} != {
        row.id for row in drawn.manifests[0].rows(TEST)
    }


def test_a_half_has_half_of_the_training_images_and_the_same_tests(prepared):
    whole = rounds(prepared, 5, seed=0).manifests[0]
    half = halved(whole, prepared.targets, seed=0)
    assert len(half.rows(TRAIN)) == len(whole.rows(TRAIN)) // 2
    assert half.rows(TEST) == whole.rows(TEST)
    assert half.rows(VAL) == whole.rows(VAL)


def test_a_given_split_is_kept_and_one_class_to_test_is_refused(some_digits, tmp_path):
    digits = some_digits("01", 12)
    for split, count in (("train", 8), ("test", 4)):
        for name in "01":
            (tmp_path / split / name).mkdir(parents=True)
            for file in sorted((digits / name).iterdir())[:count]:
                file.rename(tmp_path / split / name / file.name)
    given = prepare(tmp_path)
    assert is_given(given)
    drawn = rounds(given, 3, seed=0)
    assert not drawn.folds
    assert [len(one.rows(TEST)) for one in drawn.manifests] == [8, 8, 8]
    for file in (tmp_path / "test" / "1").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="All 4 test images are of one class, '0'"):
        rounds(prepare(tmp_path), 3, seed=0)


def test_time_is_shared_out_evenly_and_what_is_left_out_is_said():
    costs = [Cost(5, 2), Cost(5, 4)]
    ample = share_out(3600, costs, (10, 5, 3))
    assert (ample.rounds, ample.halves, ample.said) == (10, 3, "")
    steps = ample.of("round", 5)
    assert ample.of("half", 5) == steps / 2
    assert 2 * (3 * ample.search + 10 * ample.training + 3 * (5 + steps / 2)) == pytest.approx(3600)
    less = share_out(300, costs, (10, 5, 3))
    assert less.rounds == 5
    assert "5 rounds in place of 10" in less.said
    with pytest.raises(UsageError, match=r"30 s are too short.*Give --time \dm or more"):
        share_out(30, costs, (10, 5, 3))


def test_one_network_unknown_ones_and_twice_the_same_are_refused():
    with pytest.raises(UsageError, match="two networks or more"):
        named("vit_s16")
    with pytest.raises(UsageError, match="stands twice"):
        named("vit_s16,vit_s16")
    with pytest.raises(UnknownNameError, match="resnet50"):
        named("vit_s16,resnett50")


def test_all_have_the_augmentation_of_the_first_unless_each_shall_keep_its_own(prepared, some_digits):
    words, options = "vit_digits,resnet10t", TrainOptions(weights="none", imgsz="32")
    equal = planned(str(some_digits("01", 4)), prepared, words, options)
    assert augmentation_of(equal[0].recipe) == augmentation_of(equal[1].recipe)
    assert not augmentation_differs(equal)
    assert equal[0].recipe.recipe != equal[1].recipe.recipe, "each family has its own recipe"
    changed = planned("x", prepared, words, TrainOptions(weights="none", imgsz="32", mixup=0.3))
    assert {augmentation_of(one.recipe)["mixup"] for one in changed} == {0.3}
    assert "difference is one of the architectures" in credit(equal, {})


def difference(value, deviation):
    return Difference(value, deviation**2 * 1000, 0.0, 1000, 10, 0.2, 990)


def test_verdicts_in_words():
    better = said(verdict(difference(0.031, 0.0097)), "a", "b")
    assert better.startswith("a is better than b by 3.1 points (1.2 to 5.0)")
    assert "perhaps" not in better
    other = said(verdict(difference(-0.031, 0.0097)), "a", "b")
    assert other.startswith("b is better than a by 3.1 points (1.2 to 5.0)")
    same = said(verdict(difference(0.001, 0.003)), "a", "b")
    assert same.startswith("No difference that matters between a and b: +0.1 points (-0.5 to +0.7)")
    unknown = said(verdict(difference(0.012, 0.01)), "a", "b")
    assert unknown.startswith("Can't tell whether a or b is better")
    assert "more test images would" in unknown


def same_images(images):
    ids = tuple(f"{i}.png" for i in range(images))
    classes = tuple(("cat" if i % 4 else "dog",) for i in range(images))
    return SharedImages(ids, classes, ids, np.arange(images) % 10, images * 9 // 10)


def test_a_contestant_that_crashes_loses_and_counts_as_the_most_frequent_class():
    where = same_images(200)
    rng = np.random.default_rng(0)
    fine = Side("vit", (rng.random(200) < 0.9).astype(float)[None])
    broken = Side("cnn", None, crashed="memory ran out")
    (pair,) = pairs([fine, broken], where, 0.01)
    assert pair.sentence() == "vit is better than cnn, which crashed."
    (none,) = pairs([Side("gnn", None, crashed="no memory"), broken], where, 0.01)
    assert none.sentence() == "Neither gnn nor cnn could be trained."
    assert scored(broken, where) == {"value": 0.75, "low": None, "high": None}


def test_pairs_name_the_images_that_only_one_gets_right():
    where = same_images(40)
    first, second = np.ones(40), np.ones(40)
    second[:3], first[7] = 0, 0
    (pair,) = pairs([Side("a", first[None]), Side("b", second[None])], where, 0.01)
    assert set(pair.only_first) == {"0.png", "1.png", "2.png"}
    assert pair.only_second == ("7.png",)


def test_images_that_one_was_not_scored_on_are_named():
    with pytest.raises(DataError, match=r"b was not scored on 2 of 3 images: 2\.png, 3\.png"):
        matched(["1.png", "2.png", "3.png"], {"1.png": 1.0}, "b")


def test_a_training_that_fails_writes_down_why(tmp_path, prepared):
    prepared.manifest.write(tmp_path / "all.csv")
    recipe = tmp_path / "vit.yaml"
    recipe.write_text("recipe: digits_vit\n")
    job = Job(
        "train",
        str(tmp_path / "job"),
        str(recipe),
        str(tmp_path / "all.csv"),
        str(prepared.manifest.root),
        1,
        0,
    )
    assert main(str(job.write())) == 1
    assert "'data' is missing" in (tmp_path / "job" / "result.json").read_text()


def test_markdown_has_a_row_for_each(prepared):
    row = {
        "name": "vit", "score": {"value": 0.9, "low": 0.88, "high": 0.92}, "crashed": "", "weights": "none",
        "parameters": 22_000_000, "macs": 4_600_000_000, "latency": 0.02, "throughput": 80.0, "peak": 1_500_000_000,
        "epochs": 12.0, "seconds": 300.0, "calibration_error": 0.031, "by_class": {},
    }  # fmt: skip
    report = {
        "verdict": ["a is better."], "contestants": [row, {**row, "name": "cnn", "crashed": "memory ran out"}],
        "rounds": {"kind": "folds", "number": 10, "seconds": 60.0, "epochs": None, "changed": "", "on_half": 0},
        "data": {"source": "x", "images": 200}, "minutes": 30.0, "pairs": [],
    }  # fmt: skip
    text = markdown_of(report)
    assert (
        "| vit | 90.0 % (88.0 to 92.0) | none | 22.0 M | 4.6 G | 20.0 ms | 80 | 1.5 GB | 12.0 | 5.0 | 3.1 % |"
        in text
    )
    assert "cnn crashed: memory ran out" in text


def test_a_headline_says_who_is_best_or_that_nobody_is():
    where = same_images(400)
    rng = np.random.default_rng(0)
    right = {"a": rng.random(400) < 0.95, "c": rng.random(400) < 0.5}
    right["b"] = right["a"].copy()
    right["b"][:2] = ~right["b"][:2]
    sides = [Side(name, right[name].astype(float)[None]) for name in "abc"]
    first = pair_lines(pairs(sides, where, 0.01), ["a", "b", "c"])
    assert first[0].startswith("No single winner: a scores highest, but is not told apart from b")
    assert "98.3 % (Holm's correction)" in first[-1]
    right["b"] = rng.random(400) < 0.6
    sides[1] = Side("b", right["b"].astype(float)[None])
    assert pair_lines(pairs(sides, where, 0.01), ["a", "b", "c"])[0] == "a is the best of all."


def test_two_trained_models_are_never_told_to_make_more_rounds():
    rng = np.random.default_rng(0)
    for gap in (0.0, 0.005, 0.011):
        one = (rng.random(1000) < 0.9).astype(float)
        other = np.where(rng.random(1000) < 0.1, rng.random(1000) < 0.9 - gap, one).astype(float)
        found = verdict(over_seeds((one - other)[None], np.arange(1000)))
        if found.kind == "unknown":
            assert found.more is not None
            assert "more rounds would" not in said(found, "a", "b")


def test_pretrained_networks_are_fine_tuned_and_not_drafted(prepared, tmp_path):
    paths = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = config_of("vit_digits")
        paths.append(tmp_path / f"{name}.safetensors")
        _write_own(Pretrained(name, config, build(config).state_dict(), {}, "vitrail"), paths[-1])
    found = planned("x", prepared, ",".join(map(str, paths)), TrainOptions(imgsz="32", batch=8))
    assert [one.name for one in found] == ["one", "two"]
    assert {one.recipe.training.tune for one in found} == {"full"}
    assert "the difference is one of where it starts" in credit(found, {})
