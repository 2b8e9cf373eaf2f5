"""A server answers as `vitrail predict` does: at every operating point, for every task, however an image is sent."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import timm
import torch
from conftest import BF16, POINTS
from pretended import Hand, pretended
from timm.models._hub import save_for_hf

from vitrail.cli.main import run
from vitrail.cli.path_checks import model_file
from vitrail.core.errors import VitrailError
from vitrail.infer.autotune import request_with
from vitrail.infer.backends import Backend
from vitrail.infer.point_speeds import shown
from vitrail.infer.predictor import Predictor
from vitrail.layers.elastic import read_point
from vitrail.runs.proof import TOLERANCE
from vitrail.serve.engine import Engine
from vitrail.serve.messages import Batch, Model, Options, Picture
from vitrail.serve.start_images import check_images

HOW = ("name", "point", "backend", "batch", "queue_ms", "decode_ms", "network_ms")
"""What an answer of a server says beside the prediction."""


@contextmanager
def answering(path, promise=None, **words):
    """Serve a real model in this process."""
    engine = Engine(Model(str(path), in_time=promise is not None, **words))
    with pretended(promise, facts=engine.facts(), hand=Hand(engine.computed)) as served:
        yield served


def said(answer):
    """Return the prediction of an answer alone."""
    assert answer.status_code == 200, answer.text
    return [{k: v for k, v in one.items() if k not in HOW} for one in answer.json()["answers"]]


def form(paths):
    return [("file", (path.name, path.read_bytes())) for path in paths]


def close(one, other, tolerance):
    """Whether two values of JSON are equal, but numbers within a tolerance."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(close(one[k], other[k], tolerance) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(partial(close, tolerance=tolerance), one, other))
    return one == pytest.approx(other, abs=tolerance) if isinstance(one, float) else one == other


@pytest.fixture(scope="module")
def engine(dialled):
    return Engine(Model(str(dialled), in_time=True))


@pytest.fixture(scope="module")
def facts(engine):
    return engine.facts()


@pytest.fixture
def served(engine, facts):
    with pretended(5.0, facts=facts, hand=Hand(engine.computed)) as served:
        yield served


def test_every_measured_point_is_served_the_most_accurate_first(facts):
    assert facts.points[0].name == POINTS[0]
    assert {one.name for one in facts.points} <= set(POINTS)
    assert {one.backend for one in facts.points} == {str(Backend(**BF16))}


def test_at_every_point_answers_equal_those_of_the_predictor_bit_by_bit(served, facts, dialled, pictures):
    plan = Backend(**BF16)
    for name in (one.name for one in facts.points):
        predictor = Predictor(dialled, point=name)
        proof = partial(shown, check_images(predictor, str(dialled))[0])
        request = request_with(predictor, plan, read_point(name), proof, any_number=True)
        for paths in (pictures[:1], pictures[:3]):
            answer = served.post("/predict", files=form(paths), params={"point": name})
            wanted = predictor.predict([path.read_bytes() for path in paths], request)
            assert said(answer) == [one.to_dict() for one in wanted]
            for one, path in zip(answer.json()["answers"], paths, strict=True):
                assert (one["name"], one["point"], one["batch"]) == (path.name, name, len(paths))
                assert one["backend"] == str(plan)


def test_across_batch_sizes_answers_are_equal_within_the_tolerance(served, facts, pictures):
    for point in (facts.points[0].name, facts.points[-1].name):
        together = said(served.post("/predict", files=form(pictures), params={"point": point}))
        for path, wanted in zip(pictures, together, strict=True):
            alone = said(served.post("/predict", files=form([path]), params={"point": point}))[0]
            assert close(alone, wanted, 50 * TOLERANCE)
            assert alone["label"] == wanted["label"]


def test_however_an_image_is_sent_its_answer_is_the_same(served, pictures):
    path = pictures[1]
    data, text = path.read_bytes(), base64.b64encode(path.read_bytes()).decode()
    point = {"point": POINTS[0]}
    wanted = said(served.post("/predict", files=form([path]), params=point))
    assert said(served.post("/predict", content=data, params=point)) == wanted
    assert said(served.put("/predict/x.jpg", content=data, params=point)) == wanted
    assert said(served.post("/predict", json={"images": [text]}, params=point)) == wanted
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]
    answer = served.post(
        f"/v2/models/{served.front.facts.served}/infer", json={"inputs": inputs, "parameters": point}
    )
    assert [json.loads(one) for one in answer.json()["outputs"][0]["data"]] == wanted


def test_pixels_are_answered_as_the_file_that_holds_them(served, pictures):
    from PIL import Image

    with Image.open(pictures[0]) as image:
        pixels = np.asarray(image.convert("RGB"))
    shape = [1, *pixels.shape]
    inputs = [{"name": "image", "datatype": "UINT8", "shape": shape, "data": pixels.ravel().tolist()}]
    point = {"point": POINTS[0]}
    name = served.front.facts.served
    answer = served.post(f"/v2/models/{name}/infer", json={"inputs": inputs, "parameters": point})
    wanted = said(served.post("/predict", files=form(pictures[:1]), params=point))
    assert [json.loads(one) for one in answer.json()["outputs"][0]["data"]] == wanted


def test_broken_files_have_an_error_of_their_own_and_the_others_an_answer(served, pictures):
    files = [*form(pictures[:2]), ("file", ("broken.png", b"no image at all"))]
    files.append(("file", ("cut.jpg", pictures[4].read_bytes()[:600])))
    answer = served.post("/predict", files=files)
    told = answer.json()["answers"]
    assert ["error" in one for one in told] == [False, False, True, True]
    assert "broken.png" in told[2]["error"]
    for said_ in (told[2]["error"], told[3]["error"]):
        assert "Traceback" not in said_
        assert said_.endswith(".")
    answer = served.post("/predict", files=files[2:])
    assert answer.status_code == 422
    assert "broken.png" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "words", "params"),
    [
        ("classify", (), {}),
        ("multilabel", (), {}),
        ("detect", ("--threshold", "0.0"), {"threshold": 0.0}),
        ("detect", ("--threshold", "0.6"), {"threshold": 0.6}),
        ("instances", ("--threshold", "0.0"), {"threshold": 0.0}),
        ("instances", ("--threshold", "0.6"), {"threshold": 0.6}),
        ("segment", (), {}),
    ],
)
def test_a_single_image_is_answered_exactly_as_by_the_command(toy, pictures, predict, kind, words, params):
    path = toy(kind)
    with answering(path, exact=True) as served:
        for image in pictures[:3]:
            wanted = predict(path, image, *words)[0]
            wanted.pop("path")
            found = said(served.post("/predict", files=form([image]), params=params))
            assert found == [wanted]
            if params == {"threshold": 0.0}:
                objects = found[0]["boxes" if kind == "detect" else "objects"]
                assert len(objects) > 1
                assert kind == "detect" or {"rle", "polygons"} <= objects[0].keys()


@pytest.mark.parametrize(("kind", "name"), [("segment", "mask.png"), ("instances", "label_map.png")])
def test_the_mask_is_the_file_that_the_command_writes(toy, pictures, predict, tmp_path, kind, name):
    path = toy(kind)
    predict(path, pictures[0], "--out", tmp_path / "masks")
    with answering(path, exact=True) as served:
        answer = served.post("/predict", files=form(pictures[:1]), params={"files": "true"}).json()
        assert "files" not in served.post("/predict", files=form(pictures[:1])).json()["answers"][0]
    (file,) = (tmp_path / "masks").rglob(f"*.{name}")
    assert base64.b64decode(answer["answers"][0]["files"][name]) == file.read_bytes()


def test_a_threshold_is_refused_where_there_is_none(served, pictures):
    for params in ({"threshold": 0.5}, {"sets": 0.1}):
        answer = served.post("/predict", files=form(pictures[:1]), params=params)
        assert answer.status_code == 422
        assert answer.json()["error"].endswith(".")


def test_an_exported_graph_is_served(toy, pictures, predict, tmp_path):
    file = tmp_path / "toy model.onnx"
    words = ["--data", str(pictures[0].parent), "--out", str(file)]
    assert run(["export", str(toy("classify")), *words]) == 0
    wanted = predict(file, pictures[0])[0]
    wanted.pop("path")
    with answering(file, promise=5.0) as served:
        answer = served.post("/predict", files=form(pictures[:1]))
        assert close(said(answer)[0], wanted, TOLERANCE)
        assert served.get("/card").json()["methods"] == []
        refused = served.post("/explain", content=pictures[0].read_bytes())
        assert refused.status_code == 422


def test_published_weights_are_served_by_the_path_of_their_folder(pictures, predict, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=1000)
    torch.nn.init.normal_(network.fc.weight, std=0.2)
    save_for_hf(network, tmp_path / "small_net", safe_serialization=True)
    wanted = predict(tmp_path / "small_net", pictures[0])[0]
    wanted.pop("path")
    with answering(model_file(str(tmp_path / "small_net")), exact=True) as served:
        assert said(served.post("/predict", files=form(pictures[:1]))) == [wanted]


def test_a_model_that_was_not_measured_says_so_with_a_latency(toy):
    path = toy("classify")
    engine = Engine(Model(str(path), in_time=True))
    assert len(engine.facts().points) == 1
    assert any("--points all" in note for note in engine.notes)
    assert not any("--points" in note for note in Engine(Model(str(path), exact=True)).notes)


def test_a_server_of_one_point_has_no_other(dialled, pictures):
    with answering(dialled, promise=5.0, point=POINTS[2]) as served:
        assert [one["point"] for one in served.get("/card").json()["points"]] == [POINTS[2]]
        wanted = Predictor(dialled, point=POINTS[2])(pictures[0])[0].to_dict()
        assert close(said(served.post("/predict", files=form(pictures[:1])))[0], wanted, 0.05)
        assert served.post("/predict", content=b"x", params={"point": POINTS[0]}).status_code == 422
    with pytest.raises(VitrailError, match="95px"):
        Engine(Model(str(dialled), point="95px/1"))


def test_without_a_latency_the_whole_network_answers(dialled):
    assert [one.name for one in Engine(Model(str(dialled))).facts().points] == [POINTS[0]]


def test_the_options_of_a_batch_are_refused_in_a_sentence(engine, pictures):
    done = engine.computed(
        Batch(POINTS[0], Options(threshold=0.5), (Picture("a", pictures[0].read_bytes()),))
    )
    assert done.refused.endswith(".")
    assert not done.answers
