"""A small model with random weights, and pictures for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.models.create import describe
from vitrail.runs.assemble import build_task, create_model, join
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    task = build_task("classify", ["a", "b", "c"], {})
    network = join(create_model("vit_digits", 3).encoder, task).eval()
    steps = Preprocess.for_size(32)
    header = Header(
        name="vit_digits",
        encoder=describe(network.encoder),
        task={"name": "classify", "labels": list(task.labels), "settings": task.settings.model_dump()},
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    path = tmp_path / "model.safetensors"
    write_model(path, network, header)
    return path


@pytest.fixture
def shown():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (40, 30, 3), dtype=np.uint8) for _ in range(40)]
