"""Explanations through the command line: pages, figures, tables, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vitrail.explainers import relevance
from vitrail.explainers.explanation import ImageExplainer, explain
from vitrail.explainers.explanation_page import build_page
from vitrail.infer.predictor import Predictor


@pytest.fixture
def wide(tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 300, 3), dtype=np.uint8)).save(path)
    return path


def test_a_page_is_one_file_that_works_without_a_network(vitrail, trained, wide, tmp_path):
    done = vitrail("explain", trained, wide, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[0]
    methods = [(one["method"], one["of"]) for one in found["explanations"]]
    assert [method for method, _ in methods[:3]] == ["rollout", "relevance", "occlusion"]
    assert len({of for _, of in methods}) == 3  # the answer and two runners-up
    assert (
        found["explanations"][0]["faithful"]["deletion"]["low"]
        < found["explanations"][0]["faithful"]["deletion"]["high"]
    )
    page = (tmp_path / "out" / "wide.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 3_000_000
    browser = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine to open the page with")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chrome'}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-sync"]
    options += ["--disable-component-update", "--virtual-time-budget=3000", "--dump-dom"]
    shown = subprocess.run(
        [browser, *options, f"file://{tmp_path / 'out' / 'wide.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "largest weight on one patch" in shown.stdout
    assert '<b id="layer-now">4</b>' in shown.stdout


def test_what_has_no_room_is_named_and_the_rest_is_shown(trained, wide, monkeypatch):
    monkeypatch.setattr(relevance, "free_memory", lambda device: 1)
    told = build_page(ImageExplainer(Predictor(trained), wide), "wide.png", check=False)
    assert [one.method for one in told.explanations] == ["rollout", "occlusion", "occlusion", "occlusion"]
    assert "Not shown: Relevance keeps the attention of all layers in memory" in told.html


def test_a_map_of_one_cell_says_that_it_cannot_say_where(trained, wide, monkeypatch):
    look = ImageExplainer(Predictor(trained), wide)
    whole = ImageExplainer.explain

    def single(self, method, of=None, settings=None):
        found = whole(self, method, of, settings)
        return replace(found, grid=found.grid[:1, :1]) if method == "relevance" else found

    monkeypatch.setattr(ImageExplainer, "explain", single)
    told = build_page(look, "wide.png", check=False)
    assert "One cell covers the whole input" in told.html
    assert [one.method for one in told.explanations[-2:]] == ["occlusion", "occlusion"]
    assert ("the network saw nothing" in told.html) == bool(np.isnan(told.explanations[0].heat).any())
    assert "Grad-CAM" not in told.html


def test_one_method_for_a_class(vitrail, trained, wide, tmp_path):
    words = ["--method", "relevance", "--of", "2", "--output", tmp_path / "out", "--json"]
    done = vitrail("explain", trained, wide, *words)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)[0]["explanations"]
    assert (found["method"], found["of"]) == ("relevance", "2")
    assert np.array(found["grid"]).shape == (8, 8)
    with Image.open(tmp_path / "out" / "wide-relevance.png") as figure:
        assert figure.width > 2 * 300


def test_a_folder_by_all_methods_says_which_to_believe(vitrail, trained, digits, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted((digits / "3").iterdir())[:2]:
        shutil.copy(file, few)
    done = vitrail("explain", trained, few, "--method", "all", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "over 2 images" in done.stdout
    assert "Trust" in done.stdout
    assert len(list((tmp_path / "out").glob("*-all.png"))) == 2


def test_the_grid_of_heads_and_a_single_one(vitrail, trained, wide, tmp_path):
    base = [
        "explain",
        trained,
        wide,
        "--method",
        "attention",
        "--no-check",
        "--out",
        tmp_path / "out",
        "--json",
    ]
    for more in ([], ["--layer", "2", "--head", "3", "--query", "5,7"], ["--query", "cls"]):
        done = vitrail(*base, *more)
        assert done.returncode == 0, done.stderr
        assert np.array(json.loads(done.stdout)[0]["explanations"][0]["grid"]).shape == (8, 8)


def test_what_is_refused(vitrail, trained, wide):
    cases = {
        ("--method", "relevance", "--of", "five"): "no class called 'five'",
        ("--method", "attention", "--layer", "9"): "layers 1 to 4",
        ("--method", "attention", "--query", "9,9"): "from 1,1 to 8,8",
        ("--method", "gradcam"): "What fits: rollout, relevance, occlusion, attention",
        ("--method", "rollout", "--layer", "2"): "--method attention",
        ("--method", "occlusion", "--window", "9"): "9 does not fit into 8 × 8 cells. Give 8 or less.",
        ("--method", "rollout", "--discard", "1.5"): "share",
        ("--layer", "2"): "--method attention",
    }
    for words, expected in cases.items():
        done = vitrail("explain", trained, wide, *words)
        assert done.returncode == 1, (words, done.stderr)
        assert expected in done.stderr, (words, done.stderr)


def test_a_broken_picture_is_named_and_the_others_go_on(vitrail, trained, wide, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    done = vitrail(
        "explain", trained, broken, wide, "--method", "rollout", "--no-check", "--out", tmp_path / "out"
    )
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert (tmp_path / "out" / "wide-rollout.png").is_file()
    assert done.stderr.endswith("1 of 2 images could not be read; the others were processed.\n")
    inside = vitrail("inspect", trained, broken, wide, "--json", "--out", tmp_path / "inside")
    assert inside.returncode == 1
    assert json.loads(inside.stdout)["pictures"] == 1
    assert "broken.jpg" in inside.stderr
    assert inside.stderr.endswith("1 of 2 images could not be read; the others were processed.\n")
    for verb in ("predict", "explain", "inspect"):
        alone = vitrail(verb, trained, broken)
        assert alone.returncode == 1
        assert alone.stderr.endswith("The image could not be read.\n")
        assert "broken.jpg" in alone.stdout + alone.stderr


def test_from_python(trained, wide):
    predictor = Predictor(trained)
    found = explain(predictor, wide, "relevance", of="1")
    assert found.heat.shape == (120, 300)
    look = ImageExplainer(predictor, wide)
    assert look.test(look.explain("rollout")).faithful is not None
    assert look.choices[0] == look.prediction.label


def test_inside_a_run(vitrail, trained, tmp_path):
    done = vitrail("inspect", trained, "--out", tmp_path / "inside", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["attention_distance_px"]) == 4
    assert found["pictures"] > 0
    assert np.array(found["position_similarity"]).shape == (8, 8, 8, 8)
    for name in ("inside.html", "filters.png", "positions.png", "distance.png"):
        assert (tmp_path / "inside" / name).is_file()
    plain = vitrail("inspect", trained / "model.safetensors", "--out", tmp_path / "again")
    assert "name some" in plain.stdout


def test_a_run_that_has_lost_its_list_of_pictures(vitrail, trained, digits, tmp_path):
    lost = shutil.copytree(trained, tmp_path / "lost")
    (lost / "manifest.csv").unlink()
    for words in (["eval", lost], ["export", lost]):
        done = vitrail(*words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{lost}/manifest.csv, the list of the run's images, is missing.")
        assert "export takes them with --data" in done.stderr
    done = vitrail("inspect", lost)
    assert f"Name images: vitrail inspect {lost} IMAGES" in done.stderr
    assert vitrail("predict", lost, digits / "1").returncode == 0
    out = tmp_path / "lost-timm"
    assert vitrail("export", lost, "--format", "timm", "--data", digits, "--out", out).returncode == 0
    assert "is unknown whether" in vitrail("eval", lost, digits).stderr


def test_inside_a_run_that_has_lost_its_pictures(vitrail, trained, tmp_path):
    lost = shutil.copytree(trained, tmp_path / "lost")
    shutil.rmtree(lost / "state")
    (lost / "history.jsonl").unlink()
    done = vitrail("inspect", lost, "--out", tmp_path / "inside")
    assert done.returncode == 1
    assert f"Name images: vitrail inspect {lost} IMAGES" in done.stderr
    assert not (tmp_path / "inside").exists()
