"""A score told again, on new images, and with several labels an image; what a page holds and what it does not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from vitrail.runs.run import Run


@pytest.fixture(scope="module")
def others(digits, tmp_path_factory) -> Path:
    """New images of two of the four classes: the old ones, enlarged and shifted."""
    root = tmp_path_factory.mktemp("new") / "others"
    for name in "13":
        (root / name).mkdir(parents=True)
        for file in sorted((digits / name).iterdir())[:12]:
            with Image.open(file) as image:
                image.convert("L").resize((21, 19)).save(root / name / file.name)
    return root


def test_eval_tells_the_same_score_as_the_report(vitrail, trained):
    report = json.loads((trained / "report.json").read_text())
    done = vitrail("eval", trained, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["test"] == report["test"]
    assert found["calibration"] == report["calibration"]
    assert set(found["calibration"]) >= {"ece_before", "ece_after", "ece_noise", "temperature"}
    told = vitrail("eval", trained)
    assert report["verdict"] in told.stdout
    assert "calibration error" in told.stdout


def test_the_temperature_stands_in_the_model_file(trained):
    report = json.loads((trained / "report.json").read_text())
    with safe_open(trained / "model.safetensors", framework="pt") as handle:
        header = json.loads(handle.metadata()["vitrail"])
    assert header["task"]["settings"]["temperature"] == report["calibration"]["temperature"] != 1.0


def test_new_pictures_are_matched_by_name_and_missing_classes_shift_nothing(
    vitrail, trained, others, tmp_path
):
    page = tmp_path / "new.html"
    done = vitrail("eval", trained, others, "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["test"]["pictures"] == 24
    assert [row["pictures"] for row in found["test"]["per_class"].values()] == [0, 12, 0, 12]
    counts = np.array(found["test"]["confusion"]["counts"])
    assert counts.sum(axis=1).tolist() == [0, 12, 0, 12]
    answers = json.loads(vitrail("predict", trained, others / "1", "--json").stdout)
    assert counts[1, 1] == sum(one["label"] == "1" for one in answers)
    assert "on new images" in page.read_text()
    assert str(others) not in page.read_text()


def test_one_class_alone_can_be_scored(vitrail, trained, others, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(others / "3", alone / "3")
    shutil.copytree(others / "1", alone / "1")
    for file in sorted((alone / "1").iterdir()):
        file.write_bytes(b"no image")
    done = vitrail("eval", trained / "model.safetensors", alone, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"]["pictures"] == 12


def test_a_class_that_the_model_does_not_know_is_named(vitrail, trained, others, tmp_path):
    strange = tmp_path / "strange"
    shutil.copytree(others, strange)
    (strange / "1").rename(strange / "one")
    done = vitrail("eval", trained, strange)
    assert done.returncode == 1
    assert "does not know: one." in done.stderr
    assert "It knows: 0, 1, 2, 3." in done.stderr


def test_pictures_that_were_learnt_are_told_apart(vitrail, trained, digits, others, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(others, mixed)
    rows = Run(trained).manifest(digits).rows("train")
    learnt = [row for row in rows if row.target == "1"][:5]
    for number, row in enumerate(learnt):
        shutil.copy(digits / row.path, mixed / "1" / f"copy-{number}.png")
    done = vitrail("eval", trained, mixed, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["test"]["twins"] == 5
    assert found["test"]["pictures"] == 29
    assert "5 of the images were used in training" in " ".join(found["notes"])
    assert "on 29 images, of which 5 were used in training" in found["verdict"]


def test_a_model_file_knows_the_pictures_of_the_run_that_it_lies_in(
    vitrail, trained, digits, others, tmp_path
):
    learnt = tmp_path / "learnt"
    for row in Run(trained).manifest(digits).rows("train"):
        (learnt / row.target).mkdir(parents=True, exist_ok=True)
        shutil.copy(digits / row.path, learnt / row.path)
    page = tmp_path / "page.html"
    done = vitrail("eval", trained / "model.safetensors", learnt, "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    count = found["test"]["pictures"]
    assert f"on {count} images, all of which were used in training" in found["verdict"]
    assert found["test"]["twins"] == count
    assert "without_twins" not in found["test"]
    assert "all of which were used in training" in page.read_text()
    assert "new images" not in page.read_text()
    new = vitrail("eval", trained / "model.safetensors", others)
    assert "on 24 new images" in new.stdout
    lone = shutil.copy(trained / "model.safetensors", tmp_path / "model.safetensors")
    unknown = vitrail("eval", lone, learnt)
    assert f"on {count} images;" in unknown.stdout
    assert "is unknown whether these images are new" in unknown.stderr


def test_given_splits_that_leak_are_scored_with_and_without_the_twins(vitrail, digits, tmp_path):
    root = tmp_path / "leaky"
    for name in "01":
        files = sorted((digits / name).iterdir())
        for split, part in (("train", files[:8]), ("val", files[8:12]), ("test", files[12:])):
            (root / split / name).mkdir(parents=True)
            for file in part:
                shutil.copy(file, root / split / name)
        for number, file in enumerate(files[:3]):
            shutil.copy(file, root / "test" / name / f"copy-{number}.png")
    fixed = ["--model", "vit_digits", "--recipe", "digits_vit", "epochs=1", "micro=8", "batch=8"]
    options = [*fixed, "--weights", "none", "precision=float32", "--out", tmp_path / "run", "--json"]
    done = vitrail("train", root, *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["test"]["pictures"] == 22
    assert report["test"]["twins"] == 6
    without = report["test"]["without_twins"]
    assert 0 <= without["low"] <= without["value"] <= without["high"] <= 1
    assert "without those that have a duplicate in training" in report["verdict"]
    assert "have a duplicate in training" in (tmp_path / "run" / "report.html").read_text()


def test_mistakes_end_in_plain_errors(vitrail, trained, tmp_path):
    for words, expected in (
        (["eval", trained / "model.safetensors"], "is a model file without test images"),
        (["eval", trained, "--html", "x.html"], "report.html"),
        (["eval", tmp_path], "recipe.yaml"),
    ):
        done = vitrail(*words)
        assert done.returncode == 1, words
        assert expected in done.stderr


def test_the_page_is_whole_and_its_cells_open_their_pictures(trained, digits):
    page = (trained / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!data:)", page)
    assert str(digits) not in page
    assert len(page) < 5_000_000
    for name in re.findall(r'href="#(cell-[\d-]+)"', page):
        cell = page.split(f'id="{name}"')[1].split("</div>\n    <")[0]
        assert "data:image/" in cell
    for words in ("Calibration", "Where", "where the network looked", "reproduce it", "never saw"):
        assert words.lower() in page.lower()


def test_the_command_of_the_report_makes_the_run_again(vitrail, trained, digits, tmp_path):
    report = json.loads((trained / "report.json").read_text())
    words = report["reproduce"].split()[1:]
    words[words.index("IMAGES")] = str(digits)
    words[words.index("recipe.yaml")] = str(trained / "recipe.yaml")
    done = vitrail(*words, "--out", tmp_path / "again", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"] == report["test"]


def test_a_score_that_older_versions_did_not_count_is_no_difference(vitrail, trained, digits, tmp_path):
    report = json.loads((trained / "report.json").read_text())
    assert report["passport"]["scores"].pop("kappa") == report["test"]["kappa"]["value"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = vitrail(
        "reproduce", tmp_path / "report.json", "--data", digits, "--out", tmp_path / "again", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"] == []


def test_several_labels_a_picture_from_the_table_to_the_page(vitrail, pairs, tmp_path):
    fixed = ["--model", "vit_digits", "--recipe", "digits_vit", "epochs=2", "micro=16", "batch=16"]
    options = [*fixed, "--weights", "none", "precision=float32", "--out", tmp_path / "run", "--json"]
    done = vitrail("train", pairs, *options)
    assert done.returncode == 0, done.stderr
    assert "multilabel" in done.stderr
    report = json.loads(done.stdout)
    assert "mean average precision" in report["verdict"]
    assert 0 < report["test"]["map"]["value"] <= 1
    assert set(report["test"]["per_class"]) == set("0123")
    answer = json.loads(vitrail("predict", tmp_path / "run", tmp_path / "pictures/0.png", "--json").stdout)[0]
    assert {one["label"] for one in answer["labels"]} <= set("0123")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "average precision" in page
    assert "taken for" not in page
    again = vitrail("eval", tmp_path / "run", "--json")
    assert json.loads(again.stdout)["test"] == report["test"]


def test_what_the_check_found_is_kept_with_the_run_and_told_by_its_page(vitrail, digits, tmp_path):
    root = tmp_path / "flawed"
    for name in "01":
        shutil.copytree(digits / name, root / name)
    (root / "0" / "broken.png").write_bytes(b"no image")
    fixed = ["--model", "vit_digits", "--recipe", "digits_vit", "epochs=1", "micro=8", "batch=8"]
    options = [*fixed, "--weights", "none", "precision=float32", "--out", tmp_path / "run"]
    done = vitrail("train", root, *options)
    assert done.returncode == 0, done.stderr
    kept = next(event for event in Run(tmp_path / "run").history() if event["event"] == "checked")
    found = {one["kind"]: one for one in kept["findings"]}
    assert found["unreadable"]["ids"] == ["0/broken.png"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "broken.png" in page
    assert str(tmp_path) not in page
    assert str(tmp_path) not in json.dumps(kept)
