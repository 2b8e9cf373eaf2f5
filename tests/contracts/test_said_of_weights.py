"""What no tensor tells of weights: heads, size, activation, what the classifier reads. It is read where it is stated,
asked for where it is not, and never guessed without a word."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._hub import save_for_hf

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.preprocess import Preprocess
from vitrail.layers.heads import LinearHead
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, describe
from vitrail.models.vit import PRESETS, ViTConfig
from vitrail.training.distillation import open_teacher
from vitrail.weights import local_registry
from vitrail.weights.conventions import labels_of
from vitrail.weights.convert import convert
from vitrail.weights.files import open_weights
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.resolve import find_weights
from vitrail.weights.rules import save
from vitrail.weights.tables import timm as tables

VIT = ViTConfig(image=(16, 24), patch=4, width=24, depth=2, heads=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def alike(a: Pretrained, b: Pretrained) -> bool:
    return a.config == b.config and all(torch.equal(a.encoder[name], b.encoder[name]) for name in a.encoder)


def own(config: Any, folder: Path) -> Pretrained:
    """Write an encoder in our own layout, which says all, and read it."""
    torch.manual_seed(3)
    path = folder / "own.safetensors"
    encoder = build(config)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors, path, metadata={"vitrail_encoder": json.dumps({"encoder": describe(encoder)})})
    return from_path(path)


GRIDS = [(16, 24), (20, 20), (8, 40), (4, 4)]


@pytest.mark.parametrize("heads", range(1, 27))
def test_every_number_of_heads_and_every_grid_comes_back(tmp_path, heads):
    """There and back through timm's and Hugging Face's layouts, and from Google's with the size said."""
    size = GRIDS[heads % len(GRIDS)]
    image = size[0] if size[0] == size[1] else size
    config = replace(VIT, image=image, width=4 * heads, heads=heads, depth=1, gelu="tanh", norm_eps=1e-5)
    found = own(config, tmp_path)
    for layout in ("timm", "huggingface"):
        out = tmp_path / f"{layout}.safetensors"
        convert(tmp_path / "own.safetensors", out, to=layout)
        convert(out, tmp_path / "back.safetensors")
        back = from_path(tmp_path / "back.safetensors")
        assert alike(back, found), layout
        assert not back.assumed
    convert(tmp_path / "own.safetensors", tmp_path / "google.npz", to="google")
    back = from_path(tmp_path / "google.npz", network={"image": list(size), "norm_eps": 1e-5})
    assert alike(back, replace(found, config=replace(config, resize="bilinear_corners")))


FAMILIES = [
    DeiTConfig(image=(16, 24), patch=4, width=24, depth=1, heads=6),
    DeiTConfig(image=(16, 24), patch=4, width=24, depth=1, heads=2, prefix=("cls", "dist")),
    DeiTConfig(image=(20, 20), patch=4, width=24, depth=1, heads=4, position="1d_patches", layer_scale=1e-4),
    DinoV2Config(image=(16, 24), patch=4, width=24, depth=1, heads=8, registers=2, position="1d_patches"),
    DinoV2Config(image=(20, 20), patch=4, width=24, depth=1, heads=12, mlp="swiglu", hidden=16),
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda one: f"{one.family} {one.heads}")
def test_so_it_is_in_every_family(tmp_path, config):
    found = own(config, tmp_path)
    convert(tmp_path / "own.safetensors", tmp_path / "theirs.safetensors", to="timm")
    assert alike(from_path(tmp_path / "theirs.safetensors"), found)


def test_heads_that_nobody_states_are_asked_for(tmp_path):
    tensors = save(tables.VIT, build(VIT).state_dict())
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"places for 25: a grid of 5 x 5 .* or of 4 x 6 with one; state the size: --network image",
    ):
        from_path(tmp_path / "a.safetensors")
    size = {"image": [16, 24]}
    with pytest.raises(
        WeightsError, match=r"a width of 24 \(1, 2, 3, 4, 6, 8, 12, 24 divide it\).*--network heads=N"
    ):
        from_path(tmp_path / "a.safetensors", network=size)
    assert from_path(tmp_path / "a.safetensors", network={**size, "heads": 3}).config == replace(
        VIT, resize="bicubic_antialias"
    )
    with pytest.raises(WeightsError, match="says 16 x 20 px"):
        from_path(tmp_path / "a.safetensors", network={"image": [16, 20], "heads": 3})
    with pytest.raises(SettingError, match="5 heads do not divide"):
        from_path(tmp_path / "a.safetensors", network={**size, "heads": 5})


def test_so_are_places_that_no_square_has(tmp_path):
    config = replace(VIT, image=(12, 28))
    save_file(save(tables.VIT, build(config).state_dict()), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"places for 22, and no square grid has as many; state the size"):
        from_path(tmp_path / "a.safetensors", network={"heads": 3})
    found = from_path(tmp_path / "a.safetensors", network={"heads": 3, "image": [12, 28]})
    assert (found.config.size, found.assumed) == ((12, 28), ())


@pytest.mark.parametrize("preset", ["vit_digits", "vit_digits_narrow"])
def test_the_heads_of_a_preset_are_taken_and_said(tmp_path, preset):
    """Heads of 64 numbers would be one of them: what was taken before."""
    save_file(save(tables.VIT, build(PRESETS[preset]).state_dict()), tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors")
    heads = PRESETS[preset].heads
    assert found.config.heads == heads
    assert any(f"{heads} heads, as {preset} has" in line for line in found.assumed)
    assert any("made for 32 x 32 px, as a square has it" in line for line in found.assumed)
    assert any(f"the weights a: {heads} heads" in line for line in deviations(found))
    named = from_path(tmp_path / "a.safetensors", preset)
    assert (named.config, named.assumed) == (found.config, ())


def test_only_what_no_tensor_tells_can_be_stated(tmp_path):
    found = own(VIT, tmp_path)
    with pytest.raises(SettingError, match=r"'depth' goes with --weights none.*heads, image, gelu, norm_eps"):
        from_path(tmp_path / "own.safetensors", network={"depth": 3})
    with pytest.raises(SettingError, match="heads is a whole number"):
        from_path(tmp_path / "own.safetensors", network={"heads": "three"})
    with pytest.raises(WeightsError, match="says itself what its network is"):
        from_path(tmp_path / "own.safetensors", network={"heads": found.config.heads})
    convert(tmp_path / "own.safetensors", tmp_path / "a.safetensors", to="timm")
    with pytest.raises(WeightsError, match="--network says heads = 2, its header 3"):
        from_path(tmp_path / "a.safetensors", network={"heads": 2})


def test_what_was_said_when_weights_were_added_is_remembered(tmp_path):
    save_file(save(tables.VIT, build(VIT).state_dict()), tmp_path / "a.safetensors")
    said = {"heads": 3, "image": [16, 24]}
    local_registry.add(tmp_path / "a.safetensors", network=said)
    assert (find_weights("a").config.heads, find_weights("a").config.size) == (3, (16, 24))
    assert find_weights("a").network_name == "vit"


# Folders of timm.

COLUMN: dict[str, Any] = {
    "img_size": (32, 48), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_classes": 5, "num_heads": 4,
}  # fmt: skip


def of_timm(folder: Path, name: str, **settings: Any) -> torch.nn.Module:
    """Write a folder as timm does."""
    torch.manual_seed(0)
    network: torch.nn.Module = timm.create_model(name, **settings).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            if tensor.ndim == 1 or len(tensor) == 1:
                tensor += 0.2 * torch.randn(tensor.shape)
    save_for_hf(network, folder, safe_serialization=True)
    return network


def answers(found: Pretrained, images: torch.Tensor) -> torch.Tensor:
    encoder = found.build()
    head = LinearHead(encoder.spec, 5, pool=found.pool)
    head.load_state_dict(found.head)
    return head(encoder(images))["logits"]


FOLDERS = {
    "heads": ("vit_base_patch16_224", {}, "vit"),
    "tanh": ("vit_base_patch16_224", {"act_layer": "gelu_tanh"}, "vit"),
    "mean": ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False}, "vit"),
    "no class token": (
        "vit_base_patch16_224",
        {"global_pool": "avg", "fc_norm": False, "class_token": False},
        "vit",
    ),
    "dinov2": ("vit_small_patch14_dinov2", {"reg_tokens": 2, "no_embed_class": True}, "dinov2"),
    "deit3": ("deit3_small_patch16_224", {}, "deit"),
    "norm of the mean": ("vit_base_patch16_224", {"global_pool": "avg"}, "timm"),
    "norms of queries": ("vit_base_patch16_224", {"qk_norm": True}, "timm"),
    "no bias": ("vit_base_patch16_224", {"qkv_bias": False}, "timm"),
    "relu": ("vit_base_patch16_224", {"act_layer": "relu"}, "timm"),
    "dinov2, tanh": ("vit_small_patch14_dinov2", {"act_layer": "gelu_tanh"}, "timm"),
    "pool of four heads": ("vit_base_patch16_siglip_224", {}, "timm"),
    "clip": ("vit_base_patch16_clip_quickgelu_224", {}, "clip"),
    "clip, exact": ("vit_base_patch16_clip_224", {}, "clip"),
    "clip, no class token": (
        "vit_base_patch16_clip_224",
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        "timm",
    ),
    "quick": ("vit_base_patch16_224", {"act_layer": "quick_gelu"}, "vit"),
    "dinov2, quick": ("vit_small_patch14_dinov2", {"act_layer": "quick_gelu"}, "timm"),
}


@pytest.mark.parametrize("case", FOLDERS)
@torch.no_grad()
def test_a_folder_of_timm_answers_as_timm_does(tmp_path, case):
    name, more, family = FOLDERS[case]
    theirs = of_timm(tmp_path, name, **{**COLUMN, **more})
    found = from_path(tmp_path)
    assert found.config.family == family
    assert found.config.size == (32, 48)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(answers(found, images), theirs(images), rtol=0, atol=5e-6)
    assert (
        from_path(tmp_path / "model.safetensors").config == found.config
    )  # its config.json stands beside it
    assert from_path(tmp_path, found.network_name).config == found.config  # as a recipe names it
    if family == "timm" and not case.startswith("norms"):
        assert any("read as timm's" in line for line in found.assumed)


@torch.no_grad()
def test_a_convolutional_folder_needs_no_name(tmp_path):
    """timm writes model_args of every network: with any, the architecture was not read at all."""
    theirs = of_timm(tmp_path, "resnet10t", num_classes=5, in_chans=4, drop_path_rate=0.1)
    found = from_path(tmp_path)
    assert (found.config.name, found.config.channels, found.config.drop_path) == ("resnet10t", 4, None)
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(answers(found, images), theirs(images), rtol=0, atol=5e-6)
    with pytest.raises(WeightsError, match=r"timm's resnet10t, as its config.json says, and not resnet18"):
        from_path(tmp_path, "resnet18")


def told(folder: Path, **changes: Any) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **changes}))


@pytest.mark.parametrize(
    "cfg",
    [{"mean": [0.5] * 3, "std": [0.5] * 3}, {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 48]}],
)
def test_any_part_of_a_stated_preprocessing_is_read(tmp_path, cfg):
    of_timm(tmp_path, "vit_base_patch16_224", **COLUMN)
    told(tmp_path, pretrained_cfg=cfg)
    steps = published_preprocess(from_path(tmp_path))
    assert (steps.mean, steps.size) == ((0.5,) * 3, (32, 48))
    old = {"architecture": "vit_base_patch16_224", "model_args": {**COLUMN, "num_classes": 5}, **cfg}
    (tmp_path / "config.json").write_text(json.dumps(old))  # from before there was a pretrained_cfg
    assert published_preprocess(from_path(tmp_path)) == steps
    convert(tmp_path, tmp_path / "own.safetensors")
    assert published_preprocess(from_path(tmp_path / "own.safetensors")) == steps
    convert(tmp_path, tmp_path / "hub.safetensors", to="huggingface")
    assert published_preprocess(from_path(tmp_path / "hub.safetensors")) == steps


def test_a_folder_that_timm_cannot_build_says_so(tmp_path):
    of_timm(tmp_path, "vit_base_patch16_224", **COLUMN)
    told(tmp_path, model_args={"heads_of_vit": 4})
    with pytest.raises(WeightsError, match=r"model_args = {'heads_of_vit': 4}, and timm cannot build that"):
        from_path(tmp_path)
    told(tmp_path, architecture="resnet_of_tomorrow", model_args={})
    with pytest.raises(WeightsError, match=r"does not say how many heads|places for 25"):
        from_path(tmp_path)
    save_file({"stem.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"names 'resnet_of_tomorrow', which timm [\d.]+ does not know"):
        from_path(tmp_path)


def test_a_size_that_a_folder_states_and_the_places_have_not(tmp_path):
    """timm itself resizes the places on the way in; what they are of is what counts."""
    of_timm(tmp_path, "vit_base_patch16_224", **{**COLUMN, "img_size": 40})
    told(tmp_path, model_args={**COLUMN, "img_size": 24}, pretrained_cfg={"input_size": [3, 24, 24]})
    found = from_path(tmp_path)
    assert found.config.size == (40, 40)
    assert any("no size that is stated has as many places" in line for line in found.assumed)


# Folders of transformers.


def test_classes_that_a_folder_names_are_known(tmp_path):
    of_timm(tmp_path / "timm", "vit_base_patch16_224", **COLUMN)
    assert from_path(tmp_path / "timm").labels == ()
    told(tmp_path / "timm", label_names=list("edcba"))
    assert from_path(tmp_path / "timm").labels == tuple("edcba")
    steps = Preprocess((32, 48))
    teacher = open_teacher(str(tmp_path / "timm"), ("a", "b", "c"), steps)
    assert teacher.columns == [4, 3, 2]  # in the order of five equal numbers it would have been refused
    with pytest.raises(SettingError, match=r"does not know x\. Its classes are e, d, c, b, a"):
        open_teacher(str(tmp_path / "timm"), ("a", "b", "c", "d", "x"), steps)
    assert labels_of({"id2label": {"1": "cat", "0": "dog"}}) == ("dog", "cat")
    assert labels_of({"id2label": {"0": "LABEL_0"}}) == ()
    assert labels_of({"id2label": {"0": "dog", "2": "cat"}}) == ("dog", "N/A", "cat")


def test_a_processor_of_pictures_and_text_is_read(tmp_path):
    of_timm(tmp_path, "vit_base_patch16_224", **COLUMN)
    steps = {"image_processor": {"image_mean": [0.4] * 3, "image_std": [0.5] * 3}, "tokenizer": {}}
    (tmp_path / "processor_config.json").write_text(json.dumps(steps))
    assert open_weights(tmp_path).preprocessing == steps["image_processor"]


@torch.no_grad()
def test_a_folder_of_transformers_states_its_size_and_what_is_read(tmp_path):
    from transformers import Dinov2Config, Dinov2ForImageClassification, ViTForImageClassification
    from transformers import ViTConfig as HubConfig

    column = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "patch_size": 4,
        "num_labels": 5,
    }
    torch.manual_seed(0)
    vit = ViTForImageClassification(HubConfig(**column, intermediate_size=48, image_size=[16, 24])).eval()
    vit.save_pretrained(tmp_path / "vit")
    dino = Dinov2ForImageClassification(Dinov2Config(**column, mlp_ratio=2, image_size=16)).eval()
    dino.save_pretrained(tmp_path / "dino")
    for theirs, name, size in ((vit, "vit", (16, 24)), (dino, "dino", (16, 16))):
        found = from_path(tmp_path / name)
        assert (found.config.heads, found.config.size, found.assumed) == (4, size, ())
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(answers(found, images), theirs(images).logits, rtol=0, atol=5e-6)
    told(tmp_path / "vit", num_attention_heads=None)
    said = json.loads((tmp_path / "vit" / "config.json").read_text())
    said.pop("num_attention_heads")
    (tmp_path / "vit" / "config.json").write_text(json.dumps(said))
    assert from_path(tmp_path / "vit").config.heads == 12  # what transformers takes


# What training programs put around weights.


@pytest.fixture
def plain() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return save(tables.VIT, build(replace(VIT, image=16)).state_dict())


def front(word: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{word}{name}": tensor for name, tensor in tensors.items()}


SAID = {"heads": 3, "image": 16}
AROUND = {
    "torch.compile": lambda t: front("_orig_mod.", t),
    "compiled and parallel": lambda t: {"model": front("_orig_mod.module.", t)},
    "parallel and compiled": lambda t: {"state_dict": front("module._orig_mod.", t)},
    "Lightning": lambda t: {"state_dict": front("model.", t), "pytorch-lightning_version": "2.5", "epoch": 3},
    "Lightning's loss": lambda t: {"state_dict": {**front("model.", t), "criterion.weight": torch.ones(3)}},
    "SWA": lambda t: {"n_averaged": torch.tensor(7), **front("module.", t)},
    "SWA in a checkpoint": lambda t: {
        "swa": {"n_averaged": torch.tensor(7), **front("module.", t)},
        "epoch": 3,
    },
    "model_state_dict": lambda t: {
        "model_state_dict": t,
        "optimizer_state_dict": {"state": {0: {"m": torch.ones(3)}}},
    },
    "net": lambda t: {"net": t, "acc": 0.9},
    "teacher": lambda t: {
        "student": front("module.backbone.", t),
        "teacher": front("backbone.", t),
        "epoch": 3,
    },
    "one of its own": lambda t: {"my weights": t, "loss": torch.tensor(0.3)},
    "deep": lambda t: {"checkpoint": {"model": {"encoder": t}}},
    "numbers of NumPy": lambda t: {**t, "accuracy": np.float64(0.9), "loss": np.float32(0.1)},
    "settings": lambda t: {
        "model": t,
        "args": argparse.Namespace(lr=0.1),
        "path": Path("x"),
        "best": np.ones(3),
    },
}


@pytest.mark.parametrize("case", AROUND)
def test_what_stands_around_weights_is_taken_off(plain, tmp_path, case):
    torch.save(AROUND[case](plain), tmp_path / "a.PTH")
    found = from_path(tmp_path / "a.PTH", network=SAID)
    assert all(torch.equal(found.encoder[name], tensor) for name, tensor in build_state(plain).items())
    said = {
        "teacher": "of teacher, student in the file, teacher is taken",
        "Lightning's loss": "its part 'model'",
    }
    assert said.get(case, "") in " ".join(found.assumed)


def build_state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "prefix.tokens": tensors["cls_token"],
        "position.table": tensors["pos_embed"],
        "blocks.1.mlp.fall.weight": tensors["blocks.1.mlp.fc2.weight"],
    }


@pytest.mark.parametrize("word", ["module.", "_orig_mod.", "model."])
def test_so_it_is_in_safetensors(plain, tmp_path, word):
    save_file(front(word, plain), tmp_path / "a.safetensors")
    assert from_path(tmp_path / "a.safetensors", network=SAID).config.heads == 3


def test_a_network_of_timm_s_in_a_larger_one(tmp_path):
    theirs = timm.create_model("resnet10t", num_classes=5).state_dict()
    torch.save(
        {"state_dict": {**front("net.", theirs), "criterion.weight": torch.ones(5)}}, tmp_path / "a.ckpt"
    )
    found = from_path(tmp_path / "a.ckpt", "resnet10t")
    assert torch.equal(found.encoder["net.layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"])
    assert any("its part 'net' is taken" in line for line in found.assumed)


def test_a_checkpoint_of_timm_s_training_names_its_network(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_heads=6, img_size=(32, 48), depth=1)
    args = argparse.Namespace(model_kwargs={"num_heads": 6, "depth": 1}, img_size=[32, 48])
    torch.save(
        {"arch": "vit_tiny_patch16_224", "args": args, "state_dict": theirs.state_dict()},
        tmp_path / "a.pth.tar",
    )
    found = from_path(tmp_path / "a.pth.tar")
    assert (found.config.heads, found.config.size, found.assumed) == (6, (32, 48), ())


def test_several_sets_of_unknown_names_are_asked_about(plain, tmp_path):
    torch.save({"generator": plain, "discriminator": plain}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"several sets of weights \(generator, discriminator\)"):
        open_weights(tmp_path / "a.pth")


def test_files_that_are_none_say_what_they_are(tmp_path):
    for content, word in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match=word):
            open_weights(tmp_path / "model.safetensors")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_is_told_from_weights(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"holds a whole network.*network\.state_dict\(\)"):
        open_weights(tmp_path / "whole.pth")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_of_a_torchscript_archive_the_tensors_alone_are_read(tmp_path, monkeypatch):
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3))).half()
    layers[0].weight = torch.nn.Parameter(torch.randn(2, 3).t())  # its values do not lie row by row
    torch.jit.save(torch.jit.script(layers), tmp_path / "script.pt")
    wanted = layers.state_dict()
    monkeypatch.setattr(torch.jit, "load", None)
    found = open_weights(tmp_path / "script.pt").tensors
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        for name, tensor in wanted.items()
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        (
            "data.pkl",
            lambda _: pickle.dumps(os.getcwd, protocol=2),
            r"wants to run posix\.getcwd, which could be harmful",
        ),
        ("data.pkl", lambda tree: tree[: len(tree) // 2], "truncated or damaged|cannot be read"),
        ("data.pkl", lambda _: pickle.dumps({"weight": 1}, protocol=2), "cannot be read"),
        ("data/0", lambda values: values[:8], "has 2 values, not"),
    ],
    ids=["a function", "half of it", "no module", "few values"],
)
def test_a_torchscript_archive_with_anything_else_is_refused(tmp_path, part, change, word):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "script.pt") as content:
        files = {name: content.read(name) for name in content.namelist()}
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as content:
        for name, data in files.items():
            content.writestr(name, change(data) if name.endswith(f"/{part}") else data)
    with pytest.raises(WeightsError, match=word):
        open_weights(tmp_path / "other.pt")


def test_the_content_decides_what_a_file_is(plain, tmp_path):
    save_file(plain, tmp_path / "weights.bin")
    torch.save(plain, tmp_path / "weights.model")
    np.savez(tmp_path / "arrays.npz", **{name: tensor.numpy() for name, tensor in plain.items()})
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays")
    for name in ("weights.bin", "weights.model", "arrays"):
        assert open_weights(tmp_path / name).tensors.keys() == plain.keys()


def test_a_folder_with_one_file_of_weights(plain, tmp_path):
    torch.save({"model": plain}, tmp_path / "best.pth")
    assert from_path(tmp_path, network=SAID).config.heads == 3
    save_file(plain, tmp_path / "last.safetensors")
    with pytest.raises(WeightsError, match=r"several files of weights \(best.pth, last.safetensors\)"):
        from_path(tmp_path, network=SAID)


def test_of_mae_s_own_file_the_encoder_is_taken(plain, tmp_path):
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    torch.save({"model": {**plain, **decoder}}, tmp_path / "a.pth")
    found = from_path(tmp_path / "a.pth", network=SAID)
    assert any("left aside: decoder" in line for line in found.assumed)
