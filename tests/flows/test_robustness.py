"""`vitrail eval --robustness` as a user calls it; `vitrail compare --robustness` is in `test_comparison.py`."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from vitrail.core.files import write_text
from vitrail.tasks.result_file import result_from_dict

FEW = ("--robustness", "--sample", "6", "--attacked", "3", "--epsilons", "2,16")


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def parts_of(page):
    return re.findall(r"<section.*?</section>", page, re.S)


def test_a_run_is_measured_and_its_report_holds_it_beside_everything_else(vitrail, copy, digits):
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    done = vitrail("eval", copy, *FEW)
    assert done.returncode == 0, done.stderr
    assert "Robustness on 6 of 12 test images, drawn at random." in done.stdout
    for word in ("Gaussian noise", "most salient", "pieces a side", "PGD", "95 % interval"):
        assert word in done.stdout
    assert "Robustness on 6 images: 204 predictions" in done.stderr
    assert "at most 363 gradients" in done.stderr
    assert done.stderr.index("predictions") < done.stderr.index("6 of 6 images")
    page = (copy / "report.html").read_text()
    old = parts_of(before["report.html"].decode())
    new = parts_of(page)
    assert [one for one in new if one in old] == old, "nothing else of the page changed"
    added = [one for one in new if one not in old]
    assert len(added) == 9
    assert all("Robustness to" in one for one in added)
    assert str(digits) not in page
    report, kept = json.loads((copy / "report.json").read_text()), json.loads(before["report.json"])
    robustness = report.pop("robustness")
    assert report == kept
    assert robustness["models"][0]["scores"][0]["images"] == 6
    sections = result_from_dict(json.loads((copy / "result.json").read_text())).sections
    own = result_from_dict(json.loads(before["result.json"])).sections
    assert sections[: len(own)] == own
    for name in ("model.safetensors", "recipe.yaml", "manifest.csv", "README.md", "history.jsonl"):
        assert (copy / name).read_bytes() == before[name]
    again = vitrail("eval", copy, *FEW, "--json")
    found = json.loads(again.stdout)
    assert found["robustness"]["models"] == robustness["models"]
    assert len(parts_of((copy / "report.html").read_text())) == len(new), "in the place of the first one"


def test_new_images_are_measured_onto_a_page_of_their_own(vitrail, copy, digits, tmp_path):
    shutil.copytree(digits / "1", tmp_path / "new" / "1")
    shutil.copytree(digits / "3", tmp_path / "new" / "3")
    before = (copy / "report.html").read_bytes()
    html = tmp_path / "new.html"
    words = ("--robustness", "--sample", "3", "--attacked", "0", "--html", html)
    done = vitrail("eval", copy, tmp_path / "new", *words)
    assert done.returncode == 0, done.stderr
    assert "Robustness on 3 of 40 images, of which" in done.stdout
    assert "FGSM" not in done.stdout
    assert "Robustness to corruptions" in html.read_text()
    assert (copy / "report.html").read_bytes() == before


def test_what_cannot_be_measured_is_refused_before_anything_is_computed(vitrail, copy, trained):
    for words, message in (
        (("eval", copy / "model.safetensors", "--robustness"), "is a model file without test images"),
        (("eval", copy, "--robustness", "--html", "x.html"), "already exists"),
        (("eval", copy, "--robustness", "--points", "all"), "two measurements"),
        (("eval", copy, "--sample", "5"), "changes nothing without --robustness"),
        (("eval", copy, "--robustness", "--epsilons", "x"), "--epsilons x"),
        (("compare", "--models", "vit_s16,swin_t", "--robustness"), "--runs runs/a runs/b"),
    ):
        done = vitrail(*words)
        assert done.returncode in {1, 2}, words
        assert message in done.stderr, words
    recipe = (copy / "recipe.yaml").read_text()
    write_text(copy / "recipe.yaml", re.sub(r"tune: \w+", "tune: draft", recipe))
    done = vitrail("eval", copy, "--robustness")
    assert done.returncode == 1
    assert "trained on all its images" in done.stderr


def test_images_that_are_gone_are_said(vitrail, copy):
    history = copy / "history.jsonl"
    for path in (history, copy / "state"):
        shutil.rmtree(path) if path.is_dir() else path.write_text("")
    done = vitrail("eval", copy, *FEW)
    assert done.returncode == 1
    assert "does not hold the folder of its images any more" in done.stderr
