"""Models of named bands outside of a training: exported graphs, servers, robustness, cards, pictures of the studio."""

from __future__ import annotations

import json

import band_scenes
import numpy as np
import pytest

from vitrail.core.errors import DataError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.preview import preview_of
from vitrail.export.export import export
from vitrail.export.words import Form, decoding, input_words
from vitrail.infer.predictor import Predictor, load
from vitrail.robustness.measurement import refuse_unfit
from vitrail.serve.start_images import file_of, generated
from vitrail.studio.pictures import Pictures

BANDS = tuple(
    Band(name, unit, low, high)
    for name, unit, low, high in zip(
        band_scenes.BANDS,
        band_scenes.UNITS,
        (-21.0, 0.03, 0.04, 0.02, 0.0),
        (-7.0, 0.08, 0.11, 0.1, 0.5),
        strict=True,
    )
)
STEPS = Preprocess(
    (8, 8), "squash", 1.0, (-13.0, 0.05, 0.07, 0.05, 0.25), (4.0, 0.02, 0.02, 0.02, 0.2), 5, scale=1.0, bands=BANDS,
    window=8, pixel=10.0,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("few")


@pytest.fixture
def model(written):
    return written("vit_digits", STEPS)


def test_files_are_read_by_names_and_scenes_are_not_squeezed(model, tmp_path):
    predictor = Predictor(model)
    whole = band_scenes.window(tmp_path / "a.tif")
    turned = band_scenes.window(tmp_path / "b.tif", names=band_scenes.BANDS[::-1])
    one, two = predictor([str(whole), str(turned)])
    assert one.probabilities == two.probabilities
    with pytest.raises(DataError, match=r"lacks the band B08; it holds VV, B02, B03"):
        predictor(str(band_scenes.window(tmp_path / "c.tif", names=band_scenes.BANDS[:4])))
    with pytest.raises(DataError, match=r"16 x 16 pixels, and the network answers for windows of 8 x 8"):
        predictor(str(band_scenes.window(tmp_path / "d.tif", side=16)))


def test_an_exported_graph_takes_units_and_gaps_and_says_so(model, tmp_path):
    values = band_scenes.values()[0][:, :8, :8].transpose(1, 2, 0).copy()
    values[:3, :2] = np.nan
    np.save(tmp_path / "gaps.npy", values)
    done = export(model, "onnx", tmp_path / "m.onnx", data=tmp_path / "gaps.npy")
    (ours,), (theirs,) = Predictor(model)(values), load(done.path)(values)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    told = input_words(STEPS, Form())
    assert told["dtype"] == "float32"
    assert told["color_order"] == "VV, B02, B03, B04, B08"
    assert told["bands"][0] == {"name": "VV", "unit": "dB", "training_range": [-21.0, -7.0]}
    assert (told["window"], told["pixel_metres"]) == (8, 10.0)
    assert "range" not in told
    json.dumps(told)
    assert "VV (dB), -21 to -7; B02 (reflectance)" in decoding(STEPS)


def test_generated_images_lie_around_the_mean():
    image = generated(0, STEPS)
    assert image.shape == (8, 8, 5)
    assert image.dtype == np.float32
    assert (np.abs((image - STEPS.mean) / STEPS.std) <= 2.001).all()
    assert file_of(image).startswith(b"\x93NUMPY")


def test_robustness_is_refused_with_the_reason(model):
    with pytest.raises(SettingError, match=r"photographs .*VV, B02, B03 and 2 more"):
        refuse_unfit(Predictor(model))


def test_the_picture_of_a_window_has_the_colours_of_its_bands_in_their_range(tmp_path):
    values = np.full((2, 2, 5), (-14.0, 0.08, 0.04, 0.02, 9.0), np.float32)
    values[0, 0] = np.nan
    shown = STEPS.visible(values)
    assert shown[1, 1].tolist() == [0, 0, 255]  # B04, B03, B02
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert preview_of(values[..., :2], (Band("VH"), Band("VV"))).shape == (2, 2, 3)
    kept = Pictures(tmp_path / "kept")
    file = band_scenes.window(tmp_path / "a.tif")
    assert kept.add("a.tif", file.read_bytes(), (5, STEPS)).path.suffix == ".tif"
    other = band_scenes.window(tmp_path / "b.tif", names=("VV",))
    with pytest.raises(DataError, match="lacks the bands B02, B03, B04 and 1 more"):
        kept.add("b.tif", other.read_bytes(), (5, STEPS))
