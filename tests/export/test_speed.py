"""The bench measures what it says, with the same weights for everybody."""

from __future__ import annotations

import json

import pytest
import torch

from vitrail.benchmark.peers import peers, timm_twin, transformers_twin
from vitrail.cli.main import run
from vitrail.infer.timing import Peak, matmul_peak, ratio
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task


def fresh(name, image=None, **settings):
    task = build_task("classify", [*"abcde"], settings)
    return build_network(create_encoder(name, image=image), task).eval().requires_grad_(False)


def measured(capsys, *words):
    assert run(["bench", *words, "--no-compile", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_verb_measures_a_file_beside_the_peers(written, capsys):
    model = str(written("vit_digits", pool="cls"))
    found = measured(capsys, model, "--batch", "3", "--rounds", "2", "--peers")
    assert {row["model"] for row in found["rows"]} == {model}
    assert {row["batch"] for row in found["rows"]} == {1, 3}
    ways = {row["way"] for row in found["rows"]}
    assert {"vitrail float32", "timm eager", "transformers", "ONNX Runtime"} <= ways
    for row in found["rows"]:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["images"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["memory"] is None or row["memory"] >= 0
        assert row["share"] is None if "int8" in row["way"] else 0 < row["share"] < 1.5
        assert (row["ours_quicker_by"] is None) == row["way"].startswith("vitrail")
        assert row["ours_quicker_by"] is None or row["ours_quicker_by"]["low"] > 0


def test_the_verb_measures_names_alone(capsys):
    rows = measured(capsys, "vit_digits", "--batch", "1", "--rounds", "1")["rows"]
    assert {row["model"] for row in rows} == {"vit_digits"}
    assert all(row["way"].startswith("vitrail") for row in rows)


def test_memory_is_what_was_added():
    peak = Peak(torch.device("cpu"))
    if peak.read() is None:
        pytest.skip("this system does not tell how much memory was held at most")
    held = torch.ones(20_000_000)
    assert 75e6 < peak.read() < 120e6
    del held
    assert Peak(torch.device("cpu")).read() < 10e6


def test_wrong_numbers_and_names_are_refused(capsys):
    assert run(["bench", "vit_digits", "--batch", "0"]) == 1
    capsys.readouterr()
    assert run(["bench", "vit_digits", "vit_digitz"]) == 1
    said = capsys.readouterr().err
    assert "vit_digits" in said
    assert "Measuring" not in said


@pytest.mark.parametrize("name", ["vit_digits", "deit_ti16", "resnet10t", "resnetv2_18"])
def test_the_peer_has_our_weights(name):
    torch.manual_seed(0)
    network = fresh(name, (32, 32))
    images = torch.randn(2, 3, 32, 32)
    twin = timm_twin(network)
    torch.testing.assert_close(twin(images), network({"images": images})["logits"], rtol=0, atol=1e-5)


def test_transformers_has_our_weights(tmp_path):
    torch.manual_seed(0)
    network = fresh("vit_digits", pool="cls")
    images = torch.randn(2, 3, 32, 32)
    twin = transformers_twin(network, tmp_path / "theirs")
    torch.testing.assert_close(twin(images), network({"images": images})["logits"], rtol=0, atol=1e-5)
    assert transformers_twin(fresh("supervit_digits"), tmp_path / "none") is None


def test_a_network_that_timm_lacks_is_measured_without_it(tmp_path):
    network = fresh("t2t_vit_7")
    assert timm_twin(network) is None
    names = [name for name, _ in peers(network, torch.randn(1, 3, 224, 224), tmp_path, compiled=False)]
    assert "timm eager" not in names
    assert "ONNX Runtime" in names


def test_paired_ratios():
    found = ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert (found.middle, found.low, found.high) == (2.0, 2.0, 2.0)
    assert matmul_peak(torch.device("cpu"), torch.float32, side=64, rounds=2) > 0
