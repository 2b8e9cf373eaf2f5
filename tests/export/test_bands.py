"""Images of many bands and more than 8 bits, from the file to the exported graph's answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiffs import tiff

from vitrail.core.errors import DataError
from vitrail.data.open_image import load as load_row
from vitrail.data.preprocess import Preprocess
from vitrail.export import agreement
from vitrail.export.export import export
from vitrail.infer.predictor import Predictor, load
from vitrail.runs.proof import proof_image_for
from vitrail.runs.recipe import compose
from vitrail.training.initialization import build_from_recipe

STEPS = Preprocess((32, 32), "crop", 0.875, (0.4,) * 12, (0.2,) * 12, 12, scale=10_000)

pytestmark = pytest.mark.usefixtures("few")


def scenes(size: tuple[int, int], seed: int) -> np.ndarray:
    """Return uint16 numbers (height, width, 12) with something in them."""
    draw = np.random.default_rng(seed)
    return np.repeat(np.repeat(draw.integers(1, 9000, (*size, 12)), 9, 0), 7, 1).astype(np.uint16)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """TIFF files of twelve bands, half of them with a corner that holds no data."""
    folder = tmp_path_factory.mktemp("bands")
    for i in range(6):
        values = scenes((5 + i, 9 - i), i)
        if i % 2:
            values[:12, 5:20, : 3 * i] = 0
        (folder / f"{i}.tif").write_bytes(tiff(values, no_data="0", tile=16 * (i % 3), packed=i > 2))
    return folder


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_an_exported_graph_answers_as_the_model(written, images, tmp_path, format):
    model = written("vit_digits", STEPS)
    out = tmp_path / {"onnx": "m.onnx", "openvino": "m.xml", "torch": "m.pt2"}[format]
    done = export(model, format, out, data=images)
    assert done.agreement.same_top == done.agreement.pictures
    assert done.agreement.drift < 1e-4
    ours, theirs = Predictor(model), load(out, trust=True)
    assert theirs.proof_drift < 1e-5
    for source in (images, scenes((6, 7), 9), scenes((6, 7), 9).astype(np.float32) + 0.25):
        one, other = (
            np.array([answer.probabilities for answer in predictor(source)]) for predictor in (ours, theirs)
        )
        assert abs(one - other).max() < 1e-5
    apart = np.ptp([answer.probabilities for answer in ours(images)], axis=0)
    assert apart.max() > 1e-3


def test_the_numbers_of_an_npz_too(written, tmp_path):
    model = written("vit_digits", STEPS)
    values = scenes((6, 7), 3).astype(np.float32)
    values[:9, :9] = np.nan
    np.savez(tmp_path / "set.npz", images=values[None])
    np.save(tmp_path / "one.npy", values)
    done = export(model, "onnx", tmp_path / "m.onnx", data=tmp_path / "one.npy")
    array = load_row(tmp_path, "set.npz!images!0", 12, raw=True).image
    (ours,), (theirs,) = Predictor(model)(array), load(done.path)(array)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    (again,) = Predictor(model)(str(tmp_path / "one.npy"))
    assert again.probabilities == ours.probabilities


def test_values_above_255_make_a_difference(written):
    predictor = Predictor(written("vit_digits", STEPS))
    low, high = scenes((6, 7), 4) // 2 + 300, scenes((6, 7), 5) // 2 + 300
    one, other = predictor([low, high])
    assert np.abs(np.subtract(one.probabilities, other.probabilities)).max() > 1e-3
    (clipped,) = predictor(np.minimum(low, 255).astype(np.uint16))
    assert np.abs(np.subtract(one.probabilities, clipped.probabilities)).max() > 1e-3


def test_another_count_of_bands_is_refused(written, tmp_path):
    predictor = Predictor(written("vit_digits", STEPS))
    (tmp_path / "a.tif").write_bytes(tiff(scenes((6, 7), 4)[..., :4]))
    with pytest.raises(DataError, match=r"a\.tif holds 4 bands"):
        predictor(tmp_path / "a.tif")


def test_the_proof_picture_fills_the_scale_and_has_gaps():
    shown = proof_image_for(STEPS)
    assert shown.dtype == np.float32
    assert np.nanmax(shown) > 9900
    assert 0 < np.isnan(shown).mean() < 0.1
    assert proof_image_for(Preprocess.for_size(32)).dtype == np.uint8


def test_raw_pictures_are_stretched_without_new_values():
    values = scenes((6, 7), 4)
    for size in ((17, 23), (100, 90)):
        found = agreement._resized(values, *size)
        assert (found.shape, found.dtype) == ((*size, 12), np.uint16)
        assert set(np.unique(found)) <= set(np.unique(values))


def test_a_recipe_states_scale_mean_and_deviation():
    recipe = compose(
        "scratch_small",
        {
            "data": {"source": "bands"},
            "model": {
                "name": "vit_digits", "imgsz": [32, 32], "channels": 12, "fit": "squash", "scale": 10_000,
                "mean": [0.1] * 12, "std": [0.05] * 12,
            },
        },
    )  # fmt: skip
    steps = build_from_recipe(recipe, ("a", "b")).preprocess
    assert steps == Preprocess((32, 32), "squash", 1.0, (0.1,) * 12, (0.05,) * 12, 12, scale=10_000)
    plain = compose(
        "scratch_small", {"data": {"source": "x"}, "model": {"name": "vit_digits", "imgsz": [32, 32]}}
    )
    assert build_from_recipe(plain, ("a", "b")).preprocess.scale == 255
