"""The automatic choices of a training are the same every time."""

from __future__ import annotations

from itertools import cycle

import pytest
import torch

from vitrail.core.errors import TrainingError
from vitrail.data.batch import Batch
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import compose
from vitrail.training import batch_size_finder, step_format
from vitrail.training.batch_size_finder import measure
from vitrail.training.step_format import precision_for


def made(model: str, size: int, **training):
    own = {
        "data": {},
        "model": {"name": model, "imgsz": (size, size)},
        "training": {"device": "cpu", **training},
    }
    return compose("scratch_small", own)


def assembled(recipe):
    task = build_task(recipe.task.name, ("a", "b"), recipe.task.settings)
    encoder = create_encoder(recipe.model.name, image=recipe.model.imgsz, drop_path=recipe.model.drop_path)
    return build_network(encoder, task), task


@pytest.mark.parametrize(
    ("model", "size", "expected"), [("vit_digits", 32, "float32"), ("vit_s16", 224, "bf16")]
)
def test_precision_is_a_function_of_machine_and_network(model, size, expected, monkeypatch):
    recipe = made(model, size)
    with torch.device("meta"):
        network, _ = assembled(recipe)
    monkeypatch.setattr(step_format, "fast_bf16", lambda device: True)
    assert precision_for(recipe, network, torch.device("cpu")) == expected
    asked = made(model, size, precision="bf16")
    assert precision_for(asked, network, torch.device("cpu")) == "bf16"
    monkeypatch.setattr(step_format, "fast_bf16", lambda device: False)
    assert precision_for(recipe, network, torch.device("cpu")) == "float32"


def test_the_micro_batch_is_measured_once_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    recipe = made("vit_digits", 32)
    network, task = assembled(recipe)
    batch = Batch({"images": torch.randn(32, 3, 32, 32)}, [0, 1] * 16, tuple(map(str, range(32))))
    noise = cycle([0.01, 0.002, 0.03, 0.001, 0.02])
    monkeypatch.setattr(batch_size_finder.Trial, "cost", lambda self, count, form: next(noise))
    found = {measure(recipe, network, task, batch, torch.device("cpu")).micro for _ in range(5)}
    assert len(found) == 1
    for path in tmp_path.rglob("*.json"):
        path.write_text("broken")
    assert measure(recipe, network, task, batch, torch.device("cpu")).micro in {8, 16, 32}


@pytest.mark.parametrize(("held", "micro"), [(40, 32), (9, 8), (1, 1)])
def test_a_batch_that_memory_does_not_hold_is_halved_before_training(held, micro, monkeypatch):
    """A GPU starts with the whole batch, so memory can run out first in this measurement."""
    recipe = made("vit_digits", 32, micro=32)
    network, task = assembled(recipe)
    batch = Batch({"images": torch.randn(32, 3, 32, 32)}, [0, 1] * 16, tuple(map(str, range(32))))
    honest = type(task).answer

    def answer(self, network, batch, ask):
        if len(batch) > held:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(self, network, batch, ask)

    monkeypatch.setattr(type(task), "answer", answer)
    assert measure(recipe, network, task, batch, torch.device("cpu")).micro == micro
    held = 0
    with pytest.raises(TrainingError, match="one image at a time"):
        measure(recipe, network, task, batch, torch.device("cpu"))
