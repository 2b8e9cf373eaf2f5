"""One checkpoint, many costs: trained, measured, asked at a point, explained at a point."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from vitrail.core.errors import SettingError
from vitrail.explainers.explanation import explain
from vitrail.infer.backends import Backend, BackendNetwork
from vitrail.infer.predictor import Predictor, Request
from vitrail.layers.elastic import read_point


@pytest.fixture(scope="module")
def elastic(digits, tmp_path_factory):
    """A SuperViT of one epoch."""
    from vitrail.runs.train_options import TrainOptions
    from vitrail.training.fit import train

    options = TrainOptions(
        model="supervit_digits", weights="none", epochs=1, batch=16, micro=16, precision="float32",
        out=str(tmp_path_factory.mktemp("runs") / "points"),
    )  # fmt: skip
    return train(digits, options).folder


def test_points_of_a_run(vitrail, elastic, digits):
    report = json.loads((elastic / "report.json").read_text())
    stored = [row["point"] for row in report["points"]]
    assert stored[0] == "20px/0.5"
    assert stored[-1] == "32px/1"
    assert len(stored) == 12
    assert "One network, several costs" in (elastic / "report.html").read_text()
    assert all(row["images_per_second"] > 0 and row["score"]["low"] >= 0 for row in report["points"])
    costs = {row["point"]: row["gmacs"] for row in report["points"]}
    assert costs["20px/0.5"] < costs["20px/1"] < costs["32px/1"]

    done = vitrail("eval", elastic, "--points", "20px/0.5,32px/1", "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)["points"]
    assert [row["point"] for row in rows] == ["20px/0.5", "32px/1"]
    shown = vitrail("eval", elastic, str(digits), "points=all")
    assert len(shown.stdout.splitlines()) == 13
    assert "latency, ms" in shown.stdout
    wrong = vitrail("eval", elastic, "--points", "21px/1")
    assert wrong.returncode == 1
    assert "20px/0.5" in wrong.stderr


def test_a_loss_of_several_parts_is_told_part_by_part(elastic):
    events = [json.loads(line) for line in (elastic / "history.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert all(set(event["parts"]) == {"cross_entropy", "follow"} for event in steps)
    assert all(sum(event["parts"].values()) == pytest.approx(event["loss"], abs=1e-5) for event in steps)


def test_a_point_answers_and_is_explained(vitrail, elastic, digits):
    picture = sorted((digits / "3").iterdir())[0]
    done = vitrail("predict", elastic, picture, "--point", "20px/0.5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)[0]
    whole, cheap = Predictor(elastic), Predictor(elastic, point="20px/0.5")
    assert cheap(picture)[0].probability == pytest.approx(answer["probability"], abs=1e-5)
    assert cheap(picture)[0].probabilities != whole(picture)[0].probabilities
    assert cheap.ready(picture).pixels.shape == (3, 20, 20)
    found = explain(cheap, picture)
    assert found.grid.shape == (5, 5)
    assert found.heat.shape == (8, 8)
    at_most = cheap.predict(picture, Request(read_point("32px/1")))[0]
    assert at_most.probabilities == whole(picture)[0].probabilities
    assert cheap(picture)[0].probabilities != whole(picture)[0].probabilities
    assert vitrail("predict", elastic, picture, "--point", "99px").returncode == 1


def test_threads_at_two_points_get_what_each_gets_alone(elastic, digits):
    """One predictor, asked at once by the network itself and by quicker twins of it."""
    predictor = Predictor(elastic)
    pictures = [predictor.decoded(path) for path in sorted((digits / "3").iterdir())[:4]]
    points = (predictor.points[0], predictor.points[-1])
    requests = [Request(point) for point in points]
    for point in points:
        twin = BackendNetwork(
            predictor.at(point), Backend(engine="openvino"), (len(pictures), 3, *point.size)
        )
        requests.append(Request(point, twin))

    def logits(request):
        ready = [predictor.ready(picture, request.point) for picture in pictures]
        return predictor.outputs(ready, request)["logits"]

    alone = [logits(request) for request in requests]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    together = Barrier(len(requests))

    def often(request):
        together.wait()
        return [logits(request) for _ in range(20)]

    with ThreadPoolExecutor(len(requests)) as threads:
        for expected, found in zip(alone, threads.map(often, requests), strict=True):
            assert all(torch.allclose(one, expected, atol=1e-6) for one in found)


def test_a_model_of_one_cost_says_how_to_get_more(trained, digits):
    with pytest.raises(SettingError, match="--elastic"):
        Predictor(trained, point="20px/0.5")


def test_a_lone_file_needs_pictures(vitrail, elastic, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((elastic / "model.safetensors").read_bytes())
    alone = vitrail("eval", tmp_path / "model.safetensors", "--points", "all")
    assert alone.returncode == 1
    assert "FOLDER" in alone.stderr
