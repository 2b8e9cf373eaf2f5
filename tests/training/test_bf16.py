"""On a machine with wrong bf16 results, a training and its resume keep the affected layers in float32 and report it."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vitrail.core.files import write_text
from vitrail.data.batch import Batch
from vitrail.data.preprocess import Preprocess
from vitrail.infer import feature_backends
from vitrail.models.factory import create_encoder, rebuild
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import compose
from vitrail.runs.train_options import TrainOptions
from vitrail.training import initialization
from vitrail.training.batch_size_finder import checked_again, measure, with_measured_settings
from vitrail.training.distillation import Teacher, _Opened
from vitrail.training.feature_cache import Frozen
from vitrail.training.fit import resume, train

FIRST = "net.conv1.0"
"""The first convolution of a small residual network."""


class Wrong(nn.Conv2d):
    """A convolution with a wrong forward and a correct backward pass in bf16, on any machine."""

    def forward(self, x):
        exact = super().forward(x)
        return exact + (exact.flip(1) - exact).detach() if torch.is_autocast_enabled("cpu") else exact


class Forgets(nn.BatchNorm2d):
    """A norm that is wrong in bf16, while all convolutions are correct."""

    def forward(self, x):
        exact = super().forward(x)
        return exact.flip(1) if torch.is_autocast_enabled("cpu") else exact


@pytest.fixture
def cnn(tmp_path, monkeypatch):
    """A small network, its task, a recipe that asks for bf16 and a batch."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    own = {
        "data": {},
        "model": {"name": "resnet10t", "imgsz": (32, 32)},
        "training": {"device": "cpu", "precision": "bf16", "micro": 8},
    }
    recipe = compose("scratch_small", own)
    task = build_task(recipe.task.name, ("a", "b"), recipe.task.settings)
    network = build_network(create_encoder("resnet10t", image=(32, 32)), task)
    draw = torch.Generator().manual_seed(0)
    batch = Batch(
        {"images": torch.randn(8, 3, 32, 32, generator=draw)}, [0, 1] * 4, tuple(map(str, range(8)))
    )
    return recipe, network, task, batch


def test_wrong_convolutions_are_found_before_a_training_and_kept_in_its_recipe(cnn):
    recipe, network, task, batch = cnn
    found = measure(recipe, network, task, batch, torch.device("cpu"))
    assert with_measured_settings(recipe, found).training.float32 == found.check.float32
    network.encoder.get_submodule(FIRST).__class__ = Wrong
    found = measure(recipe, network, task, batch, torch.device("cpu"))
    assert found.precision == "bf16"
    assert FIRST in found.check.float32
    assert FIRST in found.check.lines()[0]
    kept = with_measured_settings(recipe, found)
    assert kept.training.float32 == found.check.float32
    assert type(kept).model_validate_json(kept.model_dump_json()) == kept
    again, lines = checked_again(recipe, network)  # a run that was begun where the convolution is right
    assert FIRST in again.training.float32
    assert lines == found.check.lines()


def test_a_network_that_is_wrong_in_bf16_is_trained_in_float32(cnn):
    recipe, network, task, batch = cnn
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = Forgets
    found = measure(recipe, network, task, batch, torch.device("cpu"))
    assert found.precision == "float32"
    assert "Computed in float32" in found.check.lines()[0]
    kept = with_measured_settings(recipe, found)
    assert (kept.training.precision, kept.training.float32) == ("float32", ())
    assert checked_again(recipe, network)[0].training.precision == "float32"


def test_features_are_right_where_a_convolution_is_wrong_in_bf16(cnn, monkeypatch):
    _, network, _, batch = cnn
    monkeypatch.setattr(feature_backends, "fast_bf16", lambda device: True)
    right = Frozen(network.encoder, Preprocess.for_size(32), torch.device("cpu"))
    network.encoder.get_submodule(FIRST).__class__ = Wrong
    maker = Frozen(network.encoder, Preprocess.for_size(32), torch.device("cpu"))
    usual = maker.backends.plans[0]
    assert usual.precision == "bf16"
    assert FIRST in maker.backends.check.float32
    assert maker.path(usual) != right.path(usual)  # what was computed wrongly is not remembered
    with torch.no_grad():
        exact = maker.encoder(batch.images).pooled
        rounded = maker.backends.network_of(usual)({"images": batch.images})["vectors"]
    assert (rounded - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose bf16 results are wrong for the first convolution of every network."""

    def broken(make):
        def made(*given, **settings):
            encoder = make(*given, **settings)
            encoder.get_submodule(FIRST).__class__ = Wrong
            return encoder

        return made

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(initialization, "create_encoder", broken(create_encoder))
    monkeypatch.setattr(initialization, "rebuild", broken(rebuild))


class Heard:
    """Collects all lines, and presses Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step, self.lines = step, []

    def __call__(self, event):
        if event.kind == "note":
            self.lines += event.values["lines"]
        if event.kind == "step" and event.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def losses(run):
    return [event["loss"] for event in run.history() if event["event"] == "step"]


def test_a_run_and_its_resume_keep_a_wrong_convolution_in_float32(some_digits, tmp_path, machine):
    digits = some_digits("012", 10)
    own = {"model": "resnet10t", "weights": "none", "imgsz": "32", "epochs": 2, "batch": 8, "micro": 4}

    def options(name, precision):
        return TrainOptions(**own, workers=0, precision=precision, out=str(tmp_path / name))

    exact = train(digits, options("exact", "float32"))
    quiet = train(digits, options("quiet", "bf16"))
    assert FIRST in quiet.recipe().training.float32
    assert losses(quiet) == pytest.approx(losses(exact), rel=0.05)
    heard = Heard(step=4)
    stopped = train(digits, options("stopped", "bf16"), listeners=[heard])
    assert any(FIRST in line and "wrong in bf16" in line for line in heard.lines)
    resume(stopped.folder)
    for name in ("state/last.safetensors", "model.safetensors"):
        one, other = load_file(quiet.folder / name), load_file(stopped.folder / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    # As if it had been begun where that convolution is right.
    recipe = stopped.recipe()
    training = recipe.training.model_copy(update={"float32": ()})
    other = recipe.model_copy(update={"training": training})
    write_text(stopped.folder / "recipe.yaml", other.model_dump_json())
    tensors, counters = stopped.load_state()
    counters["conditions"]["bf16"] = "another"
    stopped.save_state(tensors, counters)
    heard = Heard(step=0)
    resume(stopped.folder, more=1, listeners=[heard])
    assert any(FIRST in line for line in heard.lines)


def test_a_teacher_teaches_rightly_where_its_machine_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    torch.manual_seed(0)
    task = build_task("classify", ("a", "b", "c"), {})
    network = build_network(create_encoder("resnet10t"), task)
    network.get_submodule(f"encoder.{FIRST}").__class__ = Wrong
    steps = Preprocess.for_size(32)
    teacher = Teacher(_Opened(network, steps, (0, 1, 2)), steps)
    images = torch.randn(4, 3, 32, 32)
    exact = teacher(images)["logits"]
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="wrong in bf16"):
        rounded = teacher(images)["logits"]
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(images)["logits"], rounded)  # and says it once
