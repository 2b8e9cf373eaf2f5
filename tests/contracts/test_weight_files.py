"""Weight files: every kind opens, and each thing that can be wrong with one has an error of its own."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.layers.heads import LinearHead
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, create_encoder
from vitrail.models.vit import ViTConfig
from vitrail.weights import local_registry
from vitrail.weights.conventions import Preprocessing, of_hub
from vitrail.weights.convert import convert
from vitrail.weights.files import open_weights
from vitrail.weights.infer_config import preset_of
from vitrail.weights.pretrained import from_path
from vitrail.weights.resolve import find_weights
from vitrail.weights.rules import Table, save
from vitrail.weights.tables import google, huggingface, official, timm

CONFIG = ViTConfig(image=32, patch=8, width=64, depth=2, heads=1)
ONE_HEAD = {"heads": 1}
DINO = DinoV2Config(image=28, patch=7, width=64, depth=2, heads=1, registers=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """A small ViT's weights in timm's layout."""
    torch.manual_seed(3)
    encoder = build(CONFIG)
    return save(timm.VIT, encoder.state_dict(), LinearHead(encoder.spec, 5).state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def write_zeros(path: Path, table: Table, name: str) -> None:
    """Write a file with the names and shapes of a network's weights, all zero."""
    with torch.device("meta"):
        shapes = save(table, create_encoder(name).state_dict())
    save_file({key: torch.zeros(value.shape) for key, value in shapes.items()}, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth", ".pth.tar", ".npz"])
def test_every_kind_opens(tensors, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    elif suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in tensors.items()})
    else:
        torch.save(tensors, path)
    assert same(open_weights(path).tensors, tensors)


def test_what_training_scripts_wrap_around(tensors, tmp_path):
    old = {key: value + 1 for key, value in tensors.items()}
    parallel = {f"module.{key}": value for key, value in tensors.items()}
    content = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": old, "state_dict_ema": parallel}
    torch.save(content, tmp_path / "a.pth.tar")
    assert same(open_weights(tmp_path / "a.pth.tar").tensors, tensors)
    torch.save({"model": tensors, "optimizer": {"state": {}}}, tmp_path / "b.pth")
    assert same(open_weights(tmp_path / "b.pth").tensors, tensors)


def test_bfloat16_without_a_name(tmp_path):
    values = torch.randn(3, 5).bfloat16()
    np.savez(tmp_path / "a.npz", kernel=values.view(torch.int16).numpy().view("V2"))
    assert torch.equal(open_weights(tmp_path / "a.npz").tensors["kernel"], values)


def test_code_in_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth wants to run (posix|nt)\.mkdir"):
        open_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_half_a_file(tensors, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    elif suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in tensors.items()})
    else:
        torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        open_weights(path)


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        open_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="holds no weights"):
        open_weights(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(WeightsError, match="no kind of weights"):
        open_weights(tmp_path / "a.txt")


def test_a_folder_of_the_hub(tmp_path):
    encoder = build(DINO)
    parts = save(huggingface.DINOV2, encoder.state_dict())
    names = list(parts)
    weight_map = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({n: parts[n] for n in names if weight_map[n] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = {"num_attention_heads": 2, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    steps = {
        "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256},
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(steps))
    found = from_path(tmp_path)
    assert (found.config.heads, found.config.norm_eps, found.config.registers) == (2, 1e-5, 3)
    assert found.preprocessing.crop_fraction == 224 / 256
    assert (found.preprocessing.fit, found.preprocessing.interpolation) == ("crop", "bicubic")
    assert same(dict(found.encoder), encoder.state_dict())
    (tmp_path / file).unlink()
    with pytest.raises(WeightsError, match=f"lacks {file}"):
        from_path(tmp_path)


@pytest.mark.parametrize(("crop", "edge"), [(384, 450), (56, 102), (224, 256)])
def test_the_side_that_a_folder_states_comes_out_to_the_pixel(crop, edge):
    stated = {
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True, "crop_size": crop,
        "size": {"shortest_edge": edge},
    }  # fmt: skip
    assert int(crop / of_hub(stated).crop_fraction) == edge


@pytest.mark.parametrize("stated", [{"do_resize": False}, {"size": {"shortest_edge": 224}}])
def test_a_fit_that_a_folder_leaves_open_is_not_made_up(stated):
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False, **stated}
    assert of_hub(said) == Preprocessing((0.0,) * 3, (1.0,) * 3)


def test_convnext_s_processor_stretches_what_is_large_and_crops_what_is_not():
    said = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "feature_extractor_type": "ConvNextFeatureExtractor",
    }
    large, small = (of_hub({**said, "size": {"shortest_edge": edge}}) for edge in (384, 224))
    assert (large.image, large.fit, large.crop_fraction) == ((384, 384), "squash", 1.0)
    assert (small.image, small.fit, small.crop_fraction) == ((224, 224), "crop", 224 / 256)


def test_the_official_names_of_dinov2(tmp_path):
    encoder = build(replace(DINO, mlp="swiglu", hidden=40))
    tensors = save(timm.DINOV2, encoder.state_dict())
    names = {"reg_token": "register_tokens"}
    source = {
        names.get(k, k).replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v
        for k, v in tensors.items()
    }
    torch.save({**source, "mask_token": torch.zeros(1, 64)}, tmp_path / "a.pth")
    found = from_path(tmp_path / "a.pth", network=ONE_HEAD)
    assert same(dict(found.encoder), encoder.state_dict())
    assert (found.config.registers, found.config.position, found.config.mlp) == (3, "1d", "swiglu")


def test_the_source_s_conventions_travel(tmp_path):
    tensors = save(google.vit(1), build(CONFIG).state_dict())
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in tensors.items()})
    found = from_path(tmp_path / "a.npz")
    assert (found.config.gelu, found.config.resize) == ("tanh", "bilinear_corners")
    assert (found.preprocessing.mean, found.preprocessing.fit) == ((0.5, 0.5, 0.5), "squash")
    assert found.licence is None  # nobody said


def test_another_network_names_the_nearest_preset(tmp_path):
    write_zeros(tmp_path / "a.safetensors", timm.VIT, "vit_ti16")
    with pytest.raises(WeightsError, match=r"does not hold vit_s16.*--model vit_ti16"):
        from_path(tmp_path / "a.safetensors", "vit_s16")
    assert from_path(tmp_path / "a.safetensors", "vit_tiny_patch16_224").config.heads == 3


@pytest.mark.parametrize(
    ("table", "held", "asked"),
    [
        (official.T2T_PERFORMER, "t2t_vit_14", "t2t_vit_t_14"),
        (official.T2T_TRANSFORMER, "t2t_vit_t_14", "t2t_vit_14"),
        (official.SWIN, "swin_t", "swin_s"),
        (timm.DEIT, "deit3_s16", "deit_s16"),
        (timm.DEIT_DISTILLED, "deit_ti16_distilled", "deit_s16_distilled"),
        (timm.DINOV2, "dinov2_s14_reg4", "dinov2_s14"),
        (timm.MIXER, "mixer_s32", "mixer_s16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_variant_is_refused_in_every_family(tmp_path, table, held, asked):
    write_zeros(tmp_path / "a.safetensors", table, held)
    with pytest.raises(WeightsError, match=rf"does not hold {asked}\..*{held}"):
        from_path(tmp_path / "a.safetensors", asked)
    assert preset_of(from_path(tmp_path / "a.safetensors", held).config) == held


def test_a_plain_deit_is_no_deit3(tmp_path):
    write_zeros(tmp_path / "a.safetensors", timm.DEIT, "deit_s16")
    with pytest.raises(WeightsError, match=r"does not hold deit3_s16\..*--model deit_s16"):
        from_path(tmp_path / "a.safetensors", "deit3_s16")


def test_a_tensor_of_another_shape(tensors, tmp_path):
    tensors["blocks.1.norm1.weight"] = torch.zeros(63)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.1\.norm1\.weight gives \(63,\) where \(64,\) is wanted"):
        from_path(tmp_path / "a.safetensors")


def test_tensors_left_over_and_missing(tensors, tmp_path):
    tensors["adapter.weight"] = tensors.pop("blocks.0.mlp.fc2.bias")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(
        WeightsError, match=r"blocks\.0\.mlp\.fc2\.bias missing; adapter\.weight has no place"
    ):
        from_path(tmp_path / "a.safetensors")


def test_no_layout_that_is_known(tmp_path):
    save_file({"generator.0.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"no layout that is known \(first tensors: generator"):
        from_path(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="holds no vit"):
        from_path(tmp_path / "a.safetensors", "vit_s16")


def test_any_network_of_timm(tmp_path):
    import timm as library_of_networks

    theirs = library_of_networks.create_model("resnet10t", num_classes=7).eval()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors", "resnet10t")
    assert found.head.keys() == {"linear.weight", "linear.bias"}
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = found.build()(images).pooled @ found.head["linear.weight"].T + found.head["linear.bias"]
        torch.testing.assert_close(logits, theirs(images))


def test_timm_s_networks_fit_their_own_tables(tmp_path):
    import timm as library_of_networks

    theirs = library_of_networks.create_model("test_vit3", num_classes=0).eval()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    ours = from_path(tmp_path / "a.safetensors", "test_vit3").build(image=96)
    theirs.set_input_size(img_size=96)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).tokens.x, theirs.forward_features(images))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_and_sizes(tensors, tmp_path, channels):
    save_file(tensors, tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors", network=ONE_HEAD)
    colour, other = found.build(), found.build(channels=channels)
    grey = torch.randn(1, 1, 32, 32)
    a, b = colour(grey.expand(1, 3, 32, 32)), other(grey.expand(1, channels, 32, 32))
    torch.testing.assert_close(a.tokens.x, b.tokens.x, rtol=0, atol=1e-5)
    large = found.build(image=(48, 64), drop_path=0.2)
    assert large.config.size == (48, 64)
    picture = torch.randn(1, 3, 48, 64)
    torch.testing.assert_close(large(picture).tokens.x, colour(picture).tokens.x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["vitrail", "google", "timm", "huggingface"])
@pytest.mark.parametrize("stem", [(), (32,), (32, 1, 1)])
def test_there_and_back(tmp_path, layout, stem):
    torch.manual_seed(3)
    config = ViTConfig(image=32, patch=2, width=64, depth=2, heads=1, stem=stem)
    encoder = build(config)
    tensors = save(google.vit(1), encoder.state_dict(), LinearHead(encoder.spec, 5).state_dict())
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in tensors.items()})
    out = tmp_path / ("b.npz" if layout == "google" else "b.safetensors")
    if layout == "huggingface" and stem:
        with pytest.raises(WeightsError, match="does not support"):
            convert(tmp_path / "a.npz", out, to=layout)
        return
    convert(tmp_path / "a.npz", out, to=layout)
    convert(out, tmp_path / "c.npz", to="google")
    with np.load(tmp_path / "c.npz") as back:
        assert same({key: torch.from_numpy(back[key]) for key in back.files}, tensors)


def test_our_own_files_keep_the_settings(tmp_path):
    encoder = build(DINO)
    save_file(save(timm.DINOV2, encoder.state_dict()), tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", network=ONE_HEAD)
    found = from_path(tmp_path / "b.safetensors")
    assert found.config == from_path(tmp_path / "a.safetensors", network=ONE_HEAD).config
    assert found.source == "vitrail"
    broken = load_file(tmp_path / "b.safetensors")
    broken.pop("encoder.norm.bias")
    header = json.dumps({"encoder": {"family": "dinov2", "config": {"width": 64, "heads": 1}}})
    save_file(broken, tmp_path / "c.safetensors", metadata={"vitrail_encoder": header})
    with pytest.raises(WeightsError, match="its header describes"):
        from_path(tmp_path / "c.safetensors")


def test_outputs_are_named_for_what_they_are(tmp_path):
    with pytest.raises(WeightsError, match=r"stored in a \.npz file"):
        convert(tmp_path / "a.npz", tmp_path / "b.safetensors", to="google")


def test_added_weights_are_known_by_name(tensors, tmp_path):
    save_file(tensors, tmp_path / "mine.safetensors")
    entry = local_registry.add(tmp_path / "mine.safetensors", network=ONE_HEAD)
    assert (
        entry[:4]
        == (entry.name, tmp_path / "mine.safetensors", None, ONE_HEAD)
        == local_registry.known()[0][:4]
    )
    assert find_weights("mine").name == "mine"
    (tmp_path / "sub").mkdir()
    save_file(tensors, tmp_path / "sub" / "mine.safetensors")
    with pytest.raises(WeightsError, match="--name"):
        local_registry.add(tmp_path / "sub" / "mine.safetensors", network=ONE_HEAD)
    local_registry.add(tmp_path / "sub" / "mine.safetensors", name="other", network=ONE_HEAD)
    Path(entry.path).unlink()
    assert [known.name for known in local_registry.known()] == ["other"]


def test_auto_takes_what_was_added(tmp_path):
    with torch.device("meta"):
        shapes = save(timm.VIT, create_encoder("vit_ti16").state_dict())
    save_file({key: torch.ones(value.shape) for key, value in shapes.items()}, tmp_path / "ti.safetensors")
    local_registry.add(tmp_path / "ti.safetensors")
    assert find_weights("auto", "vit_ti16").name == "ti"
    with pytest.raises(WeightsError, match=r"timm/vit_small_patch16_224\.augreg_in21k cannot be had"):
        find_weights("auto", "vit_s16")
    with pytest.raises(WeightsError, match="No permissively licensed weights are published for vit_digits"):
        find_weights("auto", "vit_digits")


def test_unknown_names():
    with pytest.raises(WeightsError, match=r"Did you mean 'vit_tiny_patch16_224\.augreg_in21k'"):
        find_weights("vit_tiny_patch16_224.augreg_in12k")
    with pytest.raises(WeightsError, match="--model vit_s16 --weights auto"):
        find_weights("vit_s16")
