"""A server of a model of named bands: TIFF files by the names of their bands."""

from __future__ import annotations

import band_scenes
import pytest
import torch
from pretended import Hand, pretended

from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.serve.engine import Engine
from vitrail.serve.messages import Model


@pytest.fixture(scope="module")
def model(model_file):
    torch.manual_seed(0)
    bands = tuple(
        Band(name, unit, -20.0, 1.0) for name, unit in zip(band_scenes.BANDS, band_scenes.UNITS, strict=True)
    )
    mean, std = (-13.0, 0.05, 0.07, 0.05, 0.25), (4.0, 0.02, 0.02, 0.02, 0.2)
    steps = Preprocess((8, 8), "squash", 1.0, mean, std, 5, scale=1.0, bands=bands, window=8)
    task = build_task("classify", band_scenes.CLASSES, {})
    encoder = create_encoder("vit_digits", image=(8, 8), channels=5)
    return model_file("vit_digits", build_network(encoder, task).eval(), task, steps)


def test_files_are_answered_by_names_and_a_missing_band_is_a_422(model, tmp_path):
    whole = band_scenes.window(tmp_path / "a.tif")
    lacks = band_scenes.window(tmp_path / "b.tif", names=band_scenes.BANDS[:4])
    engine = Engine(Model(str(model)))
    with pretended(facts=engine.facts(), hand=Hand(engine.computed)) as served:
        fine = served.post("/predict", content=whole.read_bytes())
        wrong = served.post("/predict", content=lacks.read_bytes())
        card = served.get("/card").json()
    (told,) = fine.json()["answers"]
    (ours,) = Predictor(model)(str(whole))
    assert told["label"] == ours.label
    assert wrong.status_code == 422
    assert "lacks the band B08; it holds VV, B02, B03 and 1 more" in wrong.text
    assert [band["name"] for band in card["bands"]] == list(band_scenes.BANDS)
    assert card["bands"][0] == {"name": "VV", "unit": "dB", "low": -20.0, "high": 1.0}
