"""Convolutional networks train in the format that was measured to be the fastest; all others as they always did."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import count

import pytest
import torch

from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.data.preprocess import Preprocess
from vitrail.models.factory import create_encoder
from vitrail.runs.model_file import read_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import answer, drift
from vitrail.runs.recipe import compose
from vitrail.runs.reproduce import train_command
from vitrail.runs.train_options import TrainOptions
from vitrail.training import batch_size_finder, step_format, step_timing
from vitrail.training.batch_size_finder import checked_again, measure, summary_line, with_measured_settings
from vitrail.training.fit import resume, train
from vitrail.training.loop import restore, snapshot, take_step
from vitrail.training.session import accelerator_for, open_session
from vitrail.training.step_format import StepFormat, formats_for

CPU = torch.device("cpu")
LAST = StepFormat("float32", "channels_last")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with bf16, an empty cache, and no network too small to measure."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(step_format, "fast_bf16", lambda device: True)
    monkeypatch.setattr(step_format, "PAYS", 1)


def made(model="resnet10t", **training):
    own = {
        "data": {},
        "model": {"name": model, "imgsz": (32, 32)},
        "training": {"device": "cpu", "micro": 8, "batch": 8, **training},
    }
    recipe = compose("scratch_small", own)
    task = build_task(recipe.task.name, ("a", "b"), recipe.task.settings)
    torch.manual_seed(0)
    network = build_network(create_encoder(model, image=(32, 32)), task)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=draw)
    return recipe, network, task, Batch({"images": images}, [0, 1] * 4, tuple(map(str, range(8))))


def measured(monkeypatch, seconds, **training):
    """Return the recipe after its step was measured, on a machine where the formats take these seconds."""
    monkeypatch.setattr(batch_size_finder.Trial, "seconds", lambda self, count, form: seconds[str(form)])
    recipe, network, task, batch = made(**training)
    step = measure(recipe, network, task, batch, CPU)
    return with_measured_settings(recipe, step), step


SLOW = {"float32": 4.0, "bf16": 3.0, "float32, channels last": 3.5, "bf16, channels last": 5.0}


@pytest.mark.parametrize(
    ("quick", "expected"),
    [
        ({"float32, channels last": 1.0}, ("float32", "channels_last")),
        ({"bf16, channels last": 1.0}, ("bf16", "channels_last")),
        ({"float32": 1.0}, ("float32", "contiguous")),
        ({"float32, channels last": 2.9}, ("bf16", "contiguous")),  # not clearly quicker than the usual one
    ],
)
def test_the_fastest_format_is_measured_once_and_written_into_the_recipe(quick, expected, monkeypatch):
    recipe, step = measured(monkeypatch, SLOW | quick)
    assert (recipe.training.precision, recipe.training.memory_format) == expected
    told = summary_line(recipe, step, 1)
    assert f"; {StepFormat(*expected)}, 8 images at a time" in told
    again, _ = measured(
        monkeypatch, dict(zip(SLOW, count(1.0, 1.0), strict=False))
    )  # other work on the machine
    assert again == recipe
    fixed, _ = measured(
        monkeypatch, SLOW, precision=recipe.training.precision, memory_format=recipe.training.memory_format
    )
    assert fixed.training == recipe.training


def test_what_is_wrong_in_bf16_is_not_measured_in_bf16(monkeypatch):
    unfaithful = batch_size_finder.Bf16Check(off=1.0)
    monkeypatch.setattr(step_timing, "check_bf16", lambda network, images: unfaithful)
    recipe, step = measured(monkeypatch, SLOW | {"bf16": 0.1, "bf16, channels last": 0.1})
    assert (recipe.training.precision, recipe.training.memory_format) == ("float32", "channels_last")
    assert "Computed in float32" in step.check.lines()[0]


@pytest.mark.parametrize("training", [{"precision": "float32"}, {"precision": "bf16"}])
def test_a_stated_precision_is_used_as_it_always_was(training):
    recipe, network, *_ = made(**training)
    assert formats_for(recipe, network, CPU) == (StepFormat(training["precision"]),)
    recipe, network, *_ = made(**training, memory_format="channels_last")
    assert formats_for(recipe, network, CPU) == (StepFormat(training["precision"], "channels_last"),)


def test_transformers_and_small_networks_are_not_measured(monkeypatch):
    for model in ("vit_digits", "mixer_s16"):
        recipe, network, *_ = made(model)
        assert formats_for(recipe, network, CPU) == (StepFormat("bf16"),)
    recipe, network, *_ = made()
    assert len(formats_for(recipe, network, CPU)) == 4
    assert len(formats_for(recipe, network, torch.device("mps"))) == 1
    monkeypatch.setattr(step_format, "fast_bf16", lambda device: False)
    assert formats_for(recipe, network, CPU) == (StepFormat("float32"), LAST)
    monkeypatch.setattr(step_format, "PAYS", 10**12)
    assert formats_for(recipe, network, CPU) == (StepFormat("float32"),)


def session(memory_format, **training):
    recipe, network, task, batch = made(precision="float32", memory_format=memory_format, **training)
    return open_session(recipe, network, task, Order(8, 8, 0, None), accelerator_for("cpu")), batch


def test_both_formats_train_the_same_within_rounding():
    """After one step AdamW's average of the gradients is a tenth of them: what every later step is made of."""
    losses, gradients = {}, {}
    for name in ("contiguous", "channels_last"):
        one, batch = session(name)
        losses[name] = take_step(one, batch)[0]
        gradients[name] = {
            key: one.optimiser.state[weight]["exp_avg"].contiguous()
            for key, weight in one.bare.named_parameters()
            if weight in one.optimiser.state
        }
        weight = one.bare.encoder.net.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (name == "channels_last")
    assert losses["channels_last"] == pytest.approx(losses["contiguous"], rel=1e-5)
    assert gradients["contiguous"].keys() == gradients["channels_last"].keys()
    for key, exact in gradients["contiguous"].items():
        off = (gradients["channels_last"][key] - exact).norm() / exact.norm().clamp(min=1e-12)
        assert off < 1e-3, key


@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
def test_a_restored_session_goes_on_equal_to_the_bit(name):
    one, batch = session(name)
    take_step(one, batch)
    one.step += 1
    tensors, counters = snapshot(one)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    other, _ = session(name)
    restore(other, tensors, counters)
    assert take_step(one, batch) == take_step(other, batch)
    for (key, weight), again in zip(
        one.bare.state_dict().items(), other.bare.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, again), key
        assert weight.stride() == again.stride(), key
    for parameter, memory in one.optimiser.state.items():
        assert memory["exp_avg"].stride() == parameter.stride()


def test_the_proof_is_that_of_the_contiguous_weights_in_the_file():
    _, network, task, _ = made()
    steps = Preprocess.for_size(32)
    expected = answer(network, task, steps)
    network.to(memory_format=torch.channels_last)
    assert drift(expected, answer(network, task, steps)) == 0
    assert not network.encoder.net.layer1[0].conv1.weight.is_contiguous()  # the proof works on a copy


def test_bf16_is_checked_again_in_the_format_of_the_run(monkeypatch):
    recipe, network, *_ = made(precision="bf16", memory_format="channels_last")
    formats = []

    def check(network, images):
        formats.append(images.is_contiguous(memory_format=torch.channels_last))
        return batch_size_finder.Bf16Check()

    monkeypatch.setattr(batch_size_finder, "check_bf16", check)
    assert checked_again(recipe, network)[0] == recipe
    assert formats == [True]


class Stop:
    """Asks for an end after a step, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def __call__(self, event):
        if event.kind == "step" and event.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_in_channels_last_resumes_equal_to_the_bit(some_digits, tmp_path):
    data = some_digits("01", 12)
    options = TrainOptions(
        model="resnet10t", weights="none", imgsz="32", epochs=2, batch=8, micro=8, precision="float32",
        memory_format="channels_last", device="cpu", workers=0, seed=1,
    )  # fmt: skip
    whole = train(data, replace(options, out=str(tmp_path / "whole")))
    stopped = train(data, replace(options, out=str(tmp_path / "stopped")), listeners=[Stop(1)])
    assert stopped.recipe().training.memory_format == "channels_last"
    resume(stopped.folder)
    ours, theirs = (one.load_state()[0] for one in (whole, stopped))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    tensors = read_model(whole.model_path).tensors
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert "--memory-format channels_last" in train_command(whole.recipe(), "none", "class")


def test_a_recipe_of_an_older_run_is_contiguous():
    recipe, *_ = made(precision="float32")
    values = json.loads(recipe.model_dump_json())
    del values["training"]["memory_format"]
    old = type(recipe).model_validate(values)
    assert step_format.layout_of(old.training.memory_format) == torch.contiguous_format


def test_what_one_device_measured_is_not_used_by_another(monkeypatch):
    recipe, network, _, batch = made()
    paths = {batch_size_finder._cache_path(recipe, network, batch, "bf16", CPU)}
    for name in ("NVIDIA A", "NVIDIA B"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        paths.add(batch_size_finder._cache_path(recipe, network, batch, "bf16", torch.device("cuda")))
    assert len(paths) == 3
