"""Explained as it answers at an operating point: a page, figures, sliders and a camera where tokens were merged."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from live_looks import same_as_the_last_layer
from PIL import Image

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.methods import compatible_methods
from vitrail.explainers.target import Subject
from vitrail.infer.predictor import Predictor
from vitrail.layers.sdpa import Recorder
from vitrail.runs.model_file import write_model

MERGED, PATCHES = "24px/merge10", "32px/patch8"


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """A model file that names two operating points besides the whole network."""
    predictor = Predictor(trained)
    header = predictor.header.model_copy(update={"points": [{"point": MERGED}, {"point": PATCHES}]})
    path = tmp_path_factory.mktemp("measured") / "model.safetensors"
    write_model(path, predictor.network, header)
    return path


@pytest.fixture(scope="module")
def picture(digits):
    return sorted((digits / "3").iterdir())[0]


def test_a_page_shows_the_network_at_the_point(vitrail, measured, picture, tmp_path):
    done = vitrail("explain", measured, picture, "--point", MERGED, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["point"] == MERGED
    page = (tmp_path / "out" / f"{picture.stem}.html").read_text()
    assert page.count("operating point") == 1
    assert f"The operating point of the network: {MERGED}</p>" in page
    look = ImageExplainer(Predictor(measured, point=MERGED), picture)
    for one in found["explanations"][:3]:
        expected = look.explain(one["method"])
        assert one["probability"] == pytest.approx(look.prediction.probability, abs=1e-5)
        assert np.array(one["grid"]).shape == (6, 6)
        np.testing.assert_allclose(one["grid"], expected.grid, atol=1e-5)
        assert set(one["faithful"]) >= {"deletion", "insertion"}
    data = json.loads(re.search(r'<script id="attention"[^>]*>(.*?)</script>', page, re.S).group(1))
    assert [(layer["rows"], layer["cols"], layer["heads"]) for layer in data["layers"]] == [(6, 6, 4)] * 4


def test_a_page_says_nothing_where_no_point_was_named(vitrail, measured, picture, tmp_path):
    done = vitrail("explain", measured, picture, "--no-check", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert "point" not in found
    assert np.array(found["explanations"][0]["grid"]).shape == (8, 8)
    assert "operating point" not in (tmp_path / "out" / f"{picture.stem}.html").read_text()


@pytest.mark.parametrize("point", [MERGED, PATCHES])
@pytest.mark.parametrize("method", ["all", "attention", "relevance"])
def test_figures_at_a_point(vitrail, measured, picture, tmp_path, point, method):
    words = ["--method", method, "--no-check", "--out", tmp_path / "out", "--json"]
    done = vitrail("explain", measured, picture, *words, "--point", point)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    side = 6 if point == MERGED else 4
    for one in found["explanations"]:
        assert np.array(one["grid"]).shape == (side, side)
    with Image.open(found["file"]) as figure:
        assert figure.width > figure.height


def test_other_points_are_refused_with_those_there_are(vitrail, measured, trained, picture, tmp_path):
    wrong = vitrail("explain", measured, picture, "--point", "24px/merge2", "--out", tmp_path / "out")
    assert wrong.returncode == 1
    assert f"{MERGED}, {PATCHES}, 32px/1" in wrong.stderr
    alone = vitrail("explain", trained, picture, "--point", MERGED, "--out", tmp_path / "out")
    assert alone.returncode == 1
    assert "--points all" in alone.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="was neither trained nor measured"):
        Predictor(measured, point="24px/merge2")


@pytest.mark.parametrize("point", [MERGED, PATCHES])
def test_a_camera_sees_the_last_layer_at_a_point(measured, picture, point):
    model = Predictor(measured, point=point)
    look = same_as_the_last_layer(model, picture)
    assert look.point == point


def test_every_method_shows_the_network_at_the_point_and_not_the_whole_one(measured, picture):
    merged, whole = (
        ImageExplainer(Predictor(measured, point=point), picture).subject() for point in (MERGED, None)
    )
    pixels = ImageExplainer(Predictor(measured, point=MERGED), picture).ready.pixels[None]
    record = Recorder()
    merged.network.encoder(pixels, record=record)
    assert [one.cols.shape[-1] for one in record.maps] == [37, 27, 17, 9]
    assert "occlusion" in compatible_methods(merged.network)
    for method in compatible_methods(merged.network):
        explainer = catalog.load("explainer", method)()
        there = explainer(merged, pixels)
        here = explainer(Subject(whole.network, whole.task, merged.prediction, "whole"), pixels)
        assert there.shape == here.shape == (1, 6, 6)
        assert not torch.allclose(there, here, rtol=1e-3)
