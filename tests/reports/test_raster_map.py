"""The map on the page of a raster run: where it paints, in which colours, and when there is none."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.manifest import Manifest, Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.evaluate.new_data import NewData
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.reports.evaluate_model import report_of
from vitrail.reports.raster_map import GROUND, raster_map
from vitrail.reports.run_page import page_of_new
from vitrail.runs.network import build_network
from vitrail.tasks.classify.evaluation import ClassEvaluation
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.result_file import result_from_dict, result_to_dict

LABELS = ("bog", "fen", "water")
COLOURS = ((200, 30, 30), (30, 160, 60), (20, 60, 220))
HIGH, WIDE = 40, 64


def places(truth, answers, path="scene.tif", part="raster={},{},{},{}"):
    """Rows of windows of 8 × 8 around every pixel, which begin outside of the raster, and the result on them."""
    rows = [
        Row(f"{path} {y},{x}", path, part.format(x - 4, y - 4, x + 4, y + 4), LABELS[truth[y, x]], "test", "")
        for y in range(truth.shape[0])
        for x in range(truth.shape[1])
    ]
    evaluation = ClassEvaluation(LABELS)
    logits = torch.from_numpy(5.0 * np.eye(3)[answers.ravel()]).float()
    evaluation.update(rows, {"logits": logits}, truth.ravel().tolist(), [])
    return rows, evaluation.result()


@pytest.fixture(scope="module")
def scene():
    """Truth in stripes, and answers that are wrong in one corner."""
    truth = np.repeat(np.arange(WIDE) * 3 // WIDE, HIGH).reshape(WIDE, HIGH).T
    answers = truth.copy()
    answers[:10, :10] = 2
    return truth, answers, *places(truth, answers)


def picture(laid):
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(laid["image"].partition(",")[2]))).convert("RGB")
    )


def painted(pixels, colour):
    """Return how many pixels have a colour."""
    return (pixels == colour).all(-1).sum()


def test_truth_and_answer_are_painted_at_the_middle_of_their_windows(scene):
    truth, answers, rows, result = scene
    laid = raster_map(rows, COLOURS, result)
    assert laid["heading"] == "The map"
    assert laid["note"].startswith("2,560 tested places, each at its pixel")
    pixels = picture(laid)
    width = (pixels.shape[1] - 8) // 2
    scale = width // WIDE
    assert scale * WIDE == width
    left, right = pixels[:, :width], pixels[:, width + 8 :]
    for side, mask in ((left, truth), (right, answers)):
        for place, colour in enumerate(COLOURS):
            share = painted(side, colour) / scale**2 / max((mask == place).sum(), 1)
            assert 0.9 < share < 1.15, (place, share)  # the legend adds a little
    assert painted(left[:, : 10 * scale], COLOURS[2]) < 30 * scale  # no mistake on the side of the truth


def test_the_map_is_the_same_from_the_file_of_the_result(scene):
    _, _, rows, result = scene
    again = result_from_dict(result_to_dict(result))
    assert raster_map(rows, COLOURS, again) == raster_map(rows, COLOURS, result)


def test_untested_places_are_grey_and_classes_without_colours_get_some(scene):
    _truth, _answers, rows, result = scene
    some = [row for row in rows if int(row.id.partition(" ")[2].split(",")[0]) % 20 < 10]
    pixels = picture(raster_map(some, (), result))
    assert painted(pixels, GROUND) > 0.1 * pixels[..., 0].size
    assert painted(pixels, COLOURS[0]) == 0


def test_each_scene_has_its_map_and_the_smallest_are_left_out(scene):
    truth, answers = scene[:2]
    rows, result = scene[2:]
    single = picture(raster_map(rows, COLOURS, result)).shape[0]
    every, evaluation = [], ClassEvaluation(LABELS)
    for number in range(5):
        some, _ = places(truth[: 40 - number], answers[: 40 - number], f"s{number}.tif")
        logits = torch.from_numpy(5.0 * np.eye(3)[answers[: 40 - number].ravel()]).float()
        evaluation.update(some, {"logits": logits}, truth[: 40 - number].ravel().tolist(), [])
        every += some
    laid = raster_map(every, COLOURS, evaluation.result())
    assert laid["note"].endswith("Without the scenes with fewer places: s4.tif.")
    assert picture(laid).shape[0] > 3 * single


def test_there_is_no_map_of_images(scene):
    truth, answers, _, _ = scene
    rows, result = places(truth, answers, part="")
    assert raster_map(rows, COLOURS, result) is None
    rows, result = scene[2:]
    assert raster_map(rows, COLOURS, result._replace(sections=())) is None


def test_large_areas_and_sparse_places_keep_within_the_page():
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 9000, 300), draw.integers(0, 3000, 300)
    rows = [
        Row(f"{i}", "big.tif", f"raster={a},{b},{a + 8},{b + 8}", "bog", "test", "")
        for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True))
    ]
    evaluation = ClassEvaluation(LABELS)
    evaluation.update(rows, {"logits": torch.eye(3)[[0] * 300]}, [0] * 300, [])
    pixels = picture(raster_map(rows, COLOURS, evaluation.result()))
    assert pixels.shape[1] < 1500
    assert painted(pixels, COLOURS[0]) > 2 * 300 * 9


def test_the_page_of_a_raster_shows_the_map_before_the_confusion_matrix(scene, model_file):
    _, _, rows, result = scene
    task = Classify(LABELS)
    steps = Preprocess((8, 8), "squash", 1.0, channels=3)
    network = build_network(create_encoder("vit_digits", image=(8, 8), settings={"depth": 1}), task).eval()
    predictor = Predictor(model_file("toy", network, task, steps))
    manifest = Manifest.of(rows, Path(), Truth("class", LABELS, COLOURS))
    bare = result._replace(sections=tuple(one for one in result.sections if one.kind in ("table", "matrix")))
    new = NewData(manifest, tuple(rows), "places", (), ())
    html = page_of_new(new, predictor, bare, report_of(predictor, result, {}) | {"notes": []})
    assert (
        html.index("Class by class")
        < html.index("<h2>The map</h2>")
        < html.index("<h2>Confusion matrix</h2>")
    )
    assert "2,560 tested places" in html
