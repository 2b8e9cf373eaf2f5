"""Weights that other programs wrote, from the command line to the recipe: by their folder, and by what a user says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.models._hub import save_for_hf
from transformers.utils import logging

from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.open_encoder import open_encoder
from vitrail.export.agreement import Agreement, Proven
from vitrail.export.library_folders import write_huggingface, write_timm
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import build
from vitrail.models.mae import MAEConfig
from vitrail.models.vit import PRESETS, ViTConfig
from vitrail.runs.network import build_network, build_task, create_model
from vitrail.runs.train_options import TrainOptions
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import plan
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path
from vitrail.weights.resolve import find_weights

COLUMN = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip

SMALL = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 4}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    root, draw = tmp_path_factory.mktemp("some") / "photographs", np.random.default_rng(0)
    for number in range(12):
        file = root / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Folders as timm's and transformers' `save_pretrained` write them, of no preset's size."""
    root = tmp_path_factory.mktemp("theirs")
    logging.disable_progress_bar()
    torch.manual_seed(0)
    small = {
        "img_size": (32, 48),
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 4,
        "num_classes": 3,
    }
    for name, of in (("timm-vit", "vit_base_patch16_224"), ("timm-dinov2", "vit_small_patch14_dinov2")):
        save_for_hf(timm.create_model(of, **small), root / name, safe_serialization=True)
    save_for_hf(timm.create_model("resnet10t", num_classes=3), root / "timm-resnet", safe_serialization=True)
    hub = transformers
    for name, network, settings in (
        ("hub-vit", hub.ViTForImageClassification, hub.ViTConfig(**COLUMN)),
        ("hub-deit", hub.DeiTForImageClassification, hub.DeiTConfig(**COLUMN)),
        ("hub-dinov2", hub.Dinov2Model, hub.Dinov2Config(**{**COLUMN, "mlp_ratio": 2})),
        ("hub-clip", hub.CLIPVisionModel, hub.CLIPVisionConfig(**COLUMN)),
        (
            "hub-swin",
            hub.SwinForImageClassification,
            hub.SwinConfig(
                image_size=64, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4
            ),
        ),
    ):
        network(settings).save_pretrained(root / name)
    return root


NAMES = {
    "timm-vit": "vit",
    "timm-dinov2": "dinov2",
    "timm-resnet": "resnet10t",
    "hub-vit": "vit",
    "hub-deit": "deit",
    "hub-dinov2": "dinov2",
    "hub-clip": "clip",
    "hub-swin": "swin",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_weights_and_not_a_network_s_name(photographs, folders, name):
    """ "There is no model called 'hub-vit'" was the answer."""
    said = TrainOptions(weights=str(folders / name), tune="full", imgsz="64")
    planned = plan(str(photographs), prepare(photographs), said)
    assert planned.recipe.model.name == NAMES[name]
    started = build_from_recipe(planned.recipe, "abc")
    assert started.origin == name
    found = from_path(folders / name)
    assert getattr(started.network.encoder.config, "heads", None) == getattr(found.config, "heads", None)
    assert planned.recipe.training.tune == "full"


def test_what_no_tensor_tells_is_said_on_the_command_line_and_stands_in_the_recipe(photographs, tmp_path):
    theirs = timm.create_model(
        "vit_base_patch16_224", img_size=(32, 48), patch_size=8, embed_dim=24, depth=1, num_heads=4
    )
    torch.save(theirs.state_dict(), tmp_path / "bare.pth")
    stated = TrainOptions(weights=str(tmp_path / "bare.pth"), network="heads=4,image=[32,48]", tune="full")
    recipe = plan(str(photographs), prepare(photographs), stated).recipe
    assert recipe.model.settings == {"heads": 4, "image": [32, 48]}
    encoder = build_from_recipe(recipe, "abc").network.encoder
    assert (encoder.config.heads, encoder.config.size) == (4, (32, 48))


def test_every_verb_that_reads_weights_can_be_told(vitrail, tmp_path):
    theirs = timm.create_model(
        "vit_base_patch16_224", img_size=(32, 48), patch_size=8, embed_dim=24, depth=1, num_heads=4
    )
    torch.save({"model": theirs.state_dict()}, bare := tmp_path / "bare.pth")
    out = tmp_path / "own.safetensors"
    for words in (("convert", bare, "--out", out), ("weights", "add", bare)):
        done = vitrail(*words)
        assert done.returncode != 0
        assert "--network image=[HEIGHT,WIDTH]" in done.stderr
        assert "--network heads=N" in vitrail(*words, "--network", "image=[32,48]").stderr
        assert vitrail(*words, "--network", "image=[32,48],heads=4").returncode == 0
    assert from_path(out).config == find_weights("bare").config
    square = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=12, num_classes=0)
    torch.save(square.state_dict(), tmp_path / "tiny.pth")
    done = vitrail("convert", tmp_path / "tiny.pth", "--out", tmp_path / "tiny.safetensors")
    assert "tiny: 3 heads, as vit_ti16 has" in done.stderr
    assert "tiny: made for 64 x 64 px" in done.stderr
    assert "do not state their preprocessing" not in done.stderr  # nothing is prepared here


def unasked(draft: Path) -> Proven:
    """Let a folder pass: what it answers is asked below, through our own reader."""
    return Proven(Agreement(1e-3, 1, 1, 1, (9, 9), (9, 9), 0.0, 1, 0), {})


@pytest.mark.parametrize(
    "config",
    [
        PRESETS["vit_digits"],
        ViTConfig(image=28, patch=7, width=160, depth=1, heads=2),  # heads of 80, as in the huge
        ViTConfig(image=(28, 35), patch=7, width=48, depth=1, heads=4, gelu="tanh"),
        MAEConfig(image=(28, 35), patch=7, width=48, depth=1, heads=4),
    ],
    ids=["digits", "heads of 80", "oblong, tanh", "mae"],
)
@pytest.mark.parametrize("pool", ["cls", "mean"])
@torch.no_grad()
def test_our_own_folders_come_back(model_file, tmp_path, config, pool):
    """Heads of 64 were taken: one for vit_digits' four."""
    torch.manual_seed(0)
    steps = Preprocess(config.size, "squash", 1.0, (0.5,) * 3, (0.25,) * 3)
    task = build_task("classify", ["a", "b", "c"], {"pool": pool})
    network = build_network(build(config), task).eval()
    torch.nn.init.normal_(network.head.linear.weight)
    model = model_file("own", network, task, steps)
    predictor, images = Predictor(model, "cpu"), torch.randn(2, 3, *config.size)
    wanted = predictor.network({"images": images})["logits"]
    writers: list[Callable[..., None]] = [write_timm] + ([write_huggingface] if pool == "cls" else [])
    for write in writers:
        write(predictor, folder := tmp_path / write.__name__, unasked)
        found = from_path(folder)
        gelu = [getattr(one, "gelu", "exact") for one in (found.config, config)]
        assert (found.config.heads, gelu[0], found.config.size) == (config.heads, gelu[1], config.size)
        assert published_preprocess(found).mean == (0.5,) * 3
        ours = create_model("vit", 3, pretrained=str(folder))
        torch.testing.assert_close(ours(images), wanted, rtol=0, atol=1e-5)
    assert published_preprocess(from_path(model)) == steps  # a model file says how it wants images


def test_a_network_of_timm_s_that_we_wrote_comes_back(model_file, folders, tmp_path):
    found = from_path(folders / "timm-resnet")
    task = build_task("classify", ["a", "b", "c"], {})
    network = build_network(found.build(image=64, drop_path=0.1), task).eval()
    predictor = Predictor(model_file("own", network, task, Preprocess((64, 64))), "cpu")
    write_timm(predictor, tmp_path / "again", unasked)
    again = from_path(tmp_path / "again")
    assert (again.config.name, again.config.drop_path) == ("resnet10t", None)
    assert all(torch.equal(again.encoder[name], tensor) for name, tensor in found.encoder.items())


def test_a_folder_is_looked_into_by_its_path_alone(folders):
    opened = open_encoder(str(folders / "timm-resnet"), "cpu")
    assert opened.encoder.config.name == "resnet10t"


def test_the_real_folder_needs_no_name(shared, photographs):
    folder = shared("weights/tf_efficientnet_lite0")
    recipe = plan(
        str(photographs), prepare(photographs), TrainOptions(weights=str(folder), tune="full")
    ).recipe
    started = build_from_recipe(recipe, "abc")
    assert started.preprocess.mean == (0.5, 0.5, 0.5)
    assert json.loads((folder / "config.json").read_text())["architecture"] == recipe.model.name
