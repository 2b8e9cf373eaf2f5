"""Generated images are admitted only if real accuracy rises and none is a copy; planted generators show both."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import DataError, UnknownNameError, UsageError
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.data.options import DEFAULTS
from vitrail.data.prepare import prepare
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.augment.arms import held_out, repeated
from vitrail.studies.augment.gate import Asked, Generator, gate, lacking
from vitrail.studies.augment.memorisation import memorisation
from vitrail.studies.augment.outcome import Outcome, sentences
from vitrail.studies.augment_options import AugmentOptions, train_options
from vitrail.studies.compare.outcome import SharedImages

OPTIONS = TrainOptions(
    model="vit_digits", weights="none", epochs=3, batch=16, micro=16, lr=0.002, warmup=1, augment="none",
    precision="float32", device="cpu", imgsz="16",
)  # fmt: skip


def silent(line: str) -> None:
    """Say nothing."""


# Copies


def test_independent_images_are_no_copies_and_near_ones_are():
    draw = np.random.default_rng(0)
    real = draw.normal(size=(40, 16))
    names = [str(i) for i in range(40)]
    fresh = memorisation(draw.normal(size=(60, 16)), real, names)
    assert fresh.passed
    assert fresh.share.value < 0.15
    copied = memorisation(real[:30] + 0.01 * draw.normal(size=(30, 16)), real, names)
    assert not copied.passed
    assert copied.copies.all()
    assert copied.nearest.tolist() == list(range(30))
    assert copied.sentence().startswith("Memorised: 30 of 30 generated images")


def test_a_few_copies_are_left_out_and_do_not_refuse_the_others():
    draw = np.random.default_rng(1)
    real = draw.normal(size=(40, 16))
    made = np.concatenate([real[:2], draw.normal(size=(60, 16))])
    found = memorisation(made, real, [str(i) for i in range(40)])
    assert found.passed
    assert found.copies[:2].all()


def test_duplicates_among_the_real_images_do_not_hide_copies():
    draw = np.random.default_rng(2)
    single = draw.normal(size=(12, 8))
    real, names = np.repeat(single, 2, axis=0), [str(i // 2) for i in range(24)]
    found = memorisation(single + 0.02 * draw.normal(size=(12, 8)), real, names)
    assert found.limit > 0.1
    assert not found.passed
    with pytest.raises(DataError, match="cannot tell whether a generated one is a copy"):
        memorisation(single, real[:4], names[:4])


# What is compared


def test_what_the_generator_learned_from_is_not_tested_on(some_digits):
    prepared = prepare(some_digits("01", 20))
    tests = prepared.manifest.rows(TEST)
    some = [row for row in tests if row.target == "0"][:1]
    kept, notes = held_out(prepared.manifest, some, "0")
    assert {row.id for row in kept.rows(TEST)} == {row.id for row in tests} - {some[0].id}
    assert notes == ["1 test image left out: the generator learned from them."]
    with pytest.raises(DataError, match=r"No real image of '0' is left to test on.*same --seed"):
        held_out(prepared.manifest, tests, "0")


def test_repeated_images_are_training_images_evenly(some_digits):
    manifest = prepare(some_digits("01", 20)).manifest
    known = {row.hash for row in manifest.rows(TRAIN)}
    rows = repeated(manifest, 2 * len(known) + 3, seed=0)
    assert {row.hash for row in rows} == known
    times = [sum(row.hash == one for row in rows) for one in known]
    assert sorted(times)[0] == 2
    assert sorted(times)[-1] == 3
    every = manifest.replace([*manifest.rows(), *rows])
    assert len({row.id for row in every.rows()}) == len(manifest.rows()) + len(rows)
    assert [len(every.rows(split)) for split in (VAL, TEST)] == [len(manifest.rows(s)) for s in (VAL, TEST)]


def test_as_many_are_made_as_the_class_lacks(some_digits, tmp_path):
    source = tmp_path / "data"
    shutil.copytree(some_digits("012", 40), source)
    for file in sorted((source / "2").iterdir())[12:]:
        file.unlink()
    manifest = prepare(source).manifest
    counts = {name: sum(row.target == name for row in manifest.rows(TRAIN)) for name in "012"}
    assert lacking(manifest, "2") == counts["0"] - counts["2"] > 10
    assert lacking(manifest, "0") == 10


# What is decided


def outcome(gain: int, images: int = 200, seeds: int = 3) -> Outcome:
    """Return an outcome in which so many images more are right in every training."""
    draw = np.random.default_rng(0)
    without = (draw.random((seeds, images)) < 0.7).astype(float)
    with_made = without.copy()
    for row in with_made:
        row[np.flatnonzero(row == 0)[:gain]] = 1.0
    ids = tuple(map(str, range(images)))
    classes = tuple(("rare",) if i < 50 else ("other",) for i in range(images))
    return Outcome(
        "rare", SharedImages(ids, classes, ids, np.full(images, -1), 0), with_made, without, "accuracy"
    )


def test_the_interval_decides_and_a_memorised_gain_is_refused():
    draw = np.random.default_rng(0)
    real, names = draw.normal(size=(30, 8)), [str(i) for i in range(30)]
    good, bad = memorisation(draw.normal(size=(30, 8)), real, names), memorisation(real, real, names)
    clear, small = outcome(30), outcome(1)
    assert clear.rises
    assert sentences(clear, good, 30)[0] == "Admitted: with 30 generated images of rare, real accuracy rises."
    assert sentences(clear, bad, 30)[0].startswith(
        "Refused: real accuracy rises, but the generator gives back"
    )
    assert not small.rises
    assert sentences(small, good, 30)[0].startswith("Refused")
    assert "every generated image is a copy" in sentences(None, bad, 0)[0]
    of_class, others = clear.part(of_class=True), clear.part(of_class=False)
    assert (len(of_class.tested.ids), len(others.tested.ids)) == (50, 150)
    whole = clear.with_made.mean() - clear.without.mean()
    assert clear.to_dict()["difference"] == pytest.approx(whole, abs=1e-6)


# The whole way


@pytest.fixture
def rare(some_digits, tmp_path):
    """Three digits with a given split; of the digit 8, six images train."""
    source, digits = tmp_path / "data", some_digits("138", 60)
    for name in "138":
        for i, file in enumerate(sorted((digits / name).iterdir())):
            split = "train" if i < 24 else "val" if i < 32 else "test"
            if name == "8" and split == "train" and i >= 6:
                continue
            (source / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, source / split / name)
    return source, sorted((digits / "8").iterdir())[6:24]


def planted(paths):
    """Return a generator that writes these images."""

    def write(folder, number):
        folder.mkdir(parents=True)
        made = []
        for i in range(number):
            made.append(folder / f"{i:03}.png")
            Image.open(paths[i % len(paths)]).save(made[-1])
        return made

    return Generator("planted", ("1", "3", "8"), (), write)


def test_new_real_images_of_the_class_pass_the_check_and_the_table_trains(rare, tmp_path):
    """A generator that gives images which are truly new: the best that there can be."""
    source, unseen = rare
    found = gate(
        Asked(str(source), "8", OPTIONS, n=18, seeds=2), planted(unseen), silent, str(tmp_path / "out")
    )
    report = json.loads((found.folder / "augment.json").read_text())
    assert report["memorisation"]["passed"]
    compared = report["comparison"]
    assert compared["images"] == 84
    assert compared["low"] <= compared["difference"] <= compared["high"]
    assert found.admitted is (compared["low"] > 0) is report["admitted"]
    page = (found.folder / "augment.html").read_text(encoding="utf-8")
    assert found.lines[0] in page
    if found.admitted:
        with (found.folder / "images.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert {row["split"] for row in rows if row["made"] == "yes"} == {"train"}
        again = prepare(found.folder / "images.csv").manifest
        assert len(again.rows(TEST)) == 84


def test_copies_are_refused_without_more_trainings(rare, tmp_path):
    source, _ = rare
    own = sorted((source / "train" / "8").iterdir())
    found = gate(Asked(str(source), "8", OPTIONS, n=12, seeds=2), planted(own), silent, str(tmp_path / "out"))
    assert not found.admitted
    assert found.lines[0] == "Refused: every generated image is a copy of a real one."
    assert found.report["memorisation"]["copies"] == 12
    assert sorted(one.name for one in (found.folder / "trainings").iterdir() if one.is_dir()) == ["without-1"]
    assert not (found.folder / "images.csv").exists()


def test_unknown_classes_and_senseless_numbers_are_refused(rare, tmp_path):
    source, unseen = rare
    with pytest.raises(UnknownNameError, match="no class called '9'"):
        gate(Asked(str(source), "9", OPTIONS), planted(unseen), silent, str(tmp_path / "out"))
    for wrong in (AugmentOptions(n=0), AugmentOptions(seeds=1)):
        with pytest.raises(UsageError):
            train_options(wrong, DEFAULTS)
    assert not (tmp_path / "out").exists()
