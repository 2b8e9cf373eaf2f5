"""A small model with random weights, and images for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.runs.network import build_network, build_task, create_model


@pytest.fixture
def model(tmp_path, monkeypatch, model_file):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    task = build_task("classify", ["a", "b", "c"], {})
    network = build_network(create_model("vit_digits", 3).encoder, task).eval()
    return model_file("vit_digits", network, task, Preprocess.for_size(32))


@pytest.fixture
def shown():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (40, 30, 3), dtype=np.uint8) for _ in range(40)]
