"""Which bands a model needs: a network that sees some bands only, on windows of a raster."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.core.errors import RunError
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.evaluate.band_importance import HEADING, band_importance, can_measure, sensors
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.plots import Bar, intervals
from vitrail.runs.network import build_network
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_from_dict, result_to_dict

rasterio = pytest.importorskip("rasterio")

LABELS = ("bog", "fen", "water")
BANDS = (Band("VV", "dB"), Band("VH", "dB"), Band("B02"), Band("B03"), Band("B08"))
SIDE, ACROSS = 4, 60
STEPS = Preprocess((SIDE, SIDE), "squash", 1.0, (0.0,) * 5, (1.0,) * 5, 5, scale=1.0, bands=BANDS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A raster of smooth noise in five bands, and the window around every second pixel, in 15 blocks."""
    folder = tmp_path_factory.mktemp("scene")
    values = np.random.default_rng(0).normal(size=(5, 40, ACROSS)).astype(np.float32)
    profile = {"driver": "GTiff", "count": 5, "dtype": "float32", "height": 40, "width": ACROSS}
    profile |= {"crs": "EPSG:32620", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(folder / "scene.tif", "w", **profile) as file:
        file.write(values)
        file.descriptions = tuple(band.name for band in BANDS)
    rows = []
    for y in range(0, 40, 2):
        for x in range(0, ACROSS, 2):
            part = f"raster={x - 2},{y - 2},{x + 2},{y + 2}"
            rows.append(Row(f"{y},{x}", "scene.tif", part, "bog", "test", f"block {y // 14},{x // 12}"))
    return folder, rows


@pytest.fixture(scope="module")
def model(scene, model_file):
    """A random network that does not see VH and B03, and rows whose classes are its own answers."""
    folder, rows = scene
    torch.manual_seed(1)
    task = Classify(LABELS)
    encoder = create_encoder("vit_digits", image=(SIDE, SIDE), channels=5, settings={"depth": 1, "patch": 2})
    network = build_network(encoder, task).eval()
    for name, weight in network.named_parameters():
        if weight.ndim == 4 and weight.shape[1] == 5:
            with torch.no_grad():
                weight[:, [1, 3]] = 0
        if name.startswith("head") and weight.ndim == 2:
            torch.nn.init.normal_(weight)
    predictor = Predictor(model_file("toy", network, task, STEPS))
    images = [predictor.ready(row_image(folder, row)) for row in rows]
    logits = predictor.outputs(images)["logits"]
    answers = logits.argmax(1).tolist()
    return predictor, folder, [row._replace(target=LABELS[i]) for row, i in zip(rows, answers, strict=True)]


def row_image(folder, row):
    from vitrail.data.loader import load_for

    return load_for(STEPS, folder, row)


@pytest.fixture(scope="module")
def found(model):
    predictor, folder, rows = model
    return band_importance(predictor, rows, folder)


def test_bands_that_the_network_does_not_see_cost_nothing(found):
    lost = {one.name: one.lost.value for one in found.drops}
    assert found.accuracy == 1.0
    assert lost["VH"] == lost["B03"] == 0.0
    assert min(lost["VV"], lost["B02"], lost["B08"]) > 0.02
    assert [one.lost.value for one in found.drops] == sorted(lost.values(), reverse=True)


def test_bands_of_a_sensor_are_exchanged_as_one(found):
    lost = {one.name: one for one in found.drops}
    assert lost["radar (2 bands)"].bands == ("VV", "VH")
    assert (
        lost["radar (2 bands)"].lost.value == lost["VV"].lost.value
    )  # VH is not seen, and the order is the same
    both = lost["all others (3 bands)"].lost.value
    assert both > max(lost["B02"].lost.value, lost["B08"].lost.value)


def test_intervals_resample_blocks_and_everything_is_repeatable(found, model):
    predictor, folder, rows = model
    assert found.resampling["units"] == len({row.group for row in rows})
    seen = next(one for one in found.drops if one.name == "VV").lost
    assert seen.low < seen.value < seen.high
    assert next(one for one in found.drops if one.name == "VH").lost.why == "no mistake to resample"
    assert band_importance(predictor, rows, folder) == found
    alone = band_importance(predictor, [row._replace(group="") for row in rows], folder)
    assert [one.lost.value for one in alone.drops] == [one.lost.value for one in found.drops]
    assert not alone.resampling


def test_at_most_two_thousand_images_are_asked(model):
    predictor, folder, rows = model
    many = [row._replace(id=f"{row.id}-{i}") for i in range(4) for row in rows]
    found = band_importance(predictor, many, folder, groups={})
    assert (found.images, found.whole) == (2000, 2400)
    assert [len(one.bands) for one in found.drops] == [1] * 5
    assert "on 2,000 of 2,400 test images" in found.section().note


def test_the_section_is_plain_data_and_a_figure(found):
    section = found.section()
    assert section.heading == HEADING
    assert "Intervals resample 15 blocks" in section.note
    assert "The interval includes nothing lost" not in section.note
    again = result_from_dict(result_to_dict(Result("accuracy", {}, "", (), (section,)))).sections[0]
    assert again.spans() == section.spans()
    assert section.spans()[-1][1:] == (0.0, 0.0, 0.0)
    figure = intervals([Bar(*span) for span in section.spans()], section.x, region=0.0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][-1] == section.spans()[0][0]
    plain = found.to_dict()
    assert plain["pictures"] == found.images
    assert plain["bands"][0]["bands"] == list(found.drops[0].bands)


def test_a_model_without_named_bands_is_refused(model_file):
    task = Classify(LABELS)
    network = build_network(create_encoder("vit_digits", image=(8, 8), settings={"depth": 1}), task).eval()
    predictor = Predictor(model_file("toy", network, task, Preprocess.for_size(8)))
    assert not can_measure(predictor)
    with pytest.raises(RunError, match="reads no named bands"):
        band_importance(predictor, [], None)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("B02", "B03", "B04"), {}),
        (("VV", "VH"), {}),
        (("VV", "B02", "B03"), {"all others (2 bands)": ("B02", "B03")}),
        (("s1 VV", "s1 VH", "B02"), {"radar (2 bands)": ("s1 VV", "s1 VH")}),
    ],
)
def test_bands_of_radar_are_known_by_their_polarisation(names, groups):
    k = len(names)
    steps = Preprocess(
        (4, 4), "squash", 1.0, (0.0,) * k, (1.0,) * k, k, scale=1.0, bands=tuple(map(Band, names))
    )
    assert sensors(steps) == groups
