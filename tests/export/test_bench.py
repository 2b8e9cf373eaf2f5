"""The bench measures what it says, with the same weights for everybody."""

from __future__ import annotations

import json

import pytest
import torch

from vitrail.cli.main import run
from vitrail.export.bench import _peers, _timm_twin
from vitrail.infer.timing import matmul_peak, ratio
from vitrail.runs.assemble import create_model


def test_the_verb_measures_names_and_files_beside_the_peers(written, capsys):
    words = [
        "vit_digits",
        str(written("vit_digits")),
        "--batch",
        "3",
        "--rounds",
        "2",
        "--no-compile",
        "--json",
    ]
    assert run(["bench", *words, "--peers"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"] > 1e7
    assert {row["model"] for row in found["rows"]} == set(words[:2])
    assert {row["batch"] for row in found["rows"]} == {1, 3}
    ways = {row["way"] for row in found["rows"]}
    assert {"vitrail float32", "timm eager", "ONNX Runtime"} <= ways
    for row in found["rows"]:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["images"] == pytest.approx(row["batch"] / row["seconds"])
        assert 0 < row["share"] < 1.5
        assert (row["ours_quicker_by"] is None) == row["way"].startswith("vitrail")


def test_wrong_numbers_and_names_are_refused(capsys):
    assert run(["bench", "vit_digits", "--batch", "0"]) == 1
    assert run(["bench", "vit_digitz"]) == 1
    assert "vit_digits" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vit_digits", "deit_ti16"])
def test_the_peer_has_our_weights(name):
    torch.manual_seed(0)
    network = create_model(name, 5, image=(32, 32)).eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    twin = _timm_twin(network)
    wanted = network.head.pool(network.forward_features(images))
    torch.testing.assert_close(twin(images), wanted, rtol=0, atol=1e-5)


def test_a_network_that_timm_lacks_is_measured_without_it(tmp_path):
    network = create_model("t2t_vit_7", 5).eval().requires_grad_(False)
    assert _timm_twin(network) is None
    names = [name for name, _ in _peers(network, torch.randn(1, 3, 224, 224), tmp_path, compiled=False)]
    assert "timm eager" not in names
    assert "ONNX Runtime" in names


def test_paired_ratios():
    found = ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert (found.middle, found.low, found.high) == (2.0, 2.0, 2.0)
    assert matmul_peak(torch.device("cpu"), torch.float32, side=64, rounds=2) > 0
