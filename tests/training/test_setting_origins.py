"""Where each setting of a recipe comes from, and gradient checkpointing as one of them."""

from __future__ import annotations

import json

import pytest
import torch

from vitrail.core.errors import VitrailError
from vitrail.data.prepare import prepare
from vitrail.runs.recipe import compose
from vitrail.runs.train_options import TrainOptions
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import plan
from vitrail.training.setting_origins import FITTED, Layer, origins, table

NEED = {"data": {"source": "photos"}, "model": {"name": "vit_digits", "imgsz": (32, 32)}}


def test_the_last_layer_that_states_a_setting_is_its_origin():
    layers = [
        Layer("recipe digits_vit", {"training": {"epochs": 40, "batch": 32}}),
        Layer("your options", {"training": {"epochs": 3, "lr": None}}),
    ]
    read = compose("digits_vit", {**NEED, "training": {"epochs": 3}})
    fitted = read.model_copy(update={"training": read.training.model_copy(update={"batch": 16})})
    assert origins(layers, read, fitted) == {
        "your options": {"training.epochs": 3},
        FITTED: {"training.batch": 16},
    }


def test_lines_of_the_table_name_a_source_once_and_stay_narrow():
    lines = table(
        {"a recipe": {f"training.setting{i}": 0.5 for i in range(12)}, "you": {"model.imgsz": (32, 48)}}
    )
    assert [line.split("  ")[1] for line in lines if line[2] != " "] == ["a recipe", "you"]
    assert lines[-1].endswith("imgsz 32×48")
    assert max(map(len, lines)) <= 110


def test_a_plan_says_for_each_setting_who_stated_it(digits):
    options = TrainOptions(weights="none", epochs=3)
    made = plan(str(digits), prepare(digits), options)
    own = next(settings for source, settings in made.origins.items() if source.startswith("command line"))
    assert own["training.epochs"] == 3 == made.recipe.training.epochs
    named = {name: value for settings in made.origins.values() for name, value in settings.items()}
    for name, value in named.items():
        part, _, setting = name.partition(".")
        real = getattr(made.recipe, part).model_dump(mode="json")
        for key in setting.split("."):
            real = real[key]
        assert json.loads(json.dumps(real)) == json.loads(json.dumps(value)), name
    assert sum(map(len, made.origins.values())) == len(named), "no setting has two origins"


def test_checkpointing_changes_the_memory_and_no_gradient(digits):
    truth = prepare(digits).manifest.truth
    gradients = []
    for wanted in (False, True):
        made = compose("digits_vit", {**NEED, "training": {"grad_checkpointing": wanted, "device": "cpu"}})
        torch.manual_seed(0)
        network = build_from_recipe(made, truth).network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        saved: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, saved=saved: saved.append(one.shape) or one, lambda one: one
        ):
            torch.manual_seed(1)
            network.encoder(torch.randn(2, 3, *made.model.imgsz)).tokens.x.square().mean().backward()
        gradients.append(
            (len(saved), [one.grad for one in network.encoder.parameters() if one.grad is not None])
        )
    (kept, plain), (fewer, again) = gradients
    assert fewer < kept / 2
    assert len(plain) == len(again) > 10
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def test_networks_whose_blocks_may_not_run_twice_refuse_it(digits):
    made = compose(
        "cnn_scratch",
        {
            "data": {"source": "photos"},
            "model": {"name": "resnet18", "imgsz": (64, 64)},
            "training": {"grad_checkpointing": True},
        },
    )
    with pytest.raises(VitrailError, match="--grad-checkpointing: resnet18"):
        build_from_recipe(made, prepare(digits).manifest.truth)


@pytest.fixture
def digits(some_digits):
    return some_digits("012", 8)
