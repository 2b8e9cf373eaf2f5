"""TimeSformer against its official outputs, against transformers, and against the image networks that start it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TimesformerConfig, TimesformerForVideoClassification

from vitrail.core.errors import WeightsError
from vitrail.data.truth import Truth
from vitrail.layers.heads import LinearHead
from vitrail.layers.pooling import Pool
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, count_macs, count_params, create_encoder, describe
from vitrail.models.mae import MAEConfig
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.models.vit import ViTConfig
from vitrail.runs.recipe import ModelSettings, Recipe
from vitrail.training.initialization import build_from_recipe
from vitrail.weights import checkpoints
from vitrail.weights.convert import convert
from vitrail.weights.detect_layout import read
from vitrail.weights.files import open_weights
from vitrail.weights.image_start import image_network, over_time
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.rules import load, save
from vitrail.weights.tables import timesformer as tables
from vitrail.weights.tables import timm

SMALL = {"image": 48, "patch": 16, "frames": 4, "width": 96, "depth": 3, "heads": 3}


def close(ours, theirs, atol=2e-5):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_official_outputs(shared, attention):
    source = load_file(shared(f"goldens/timesformer_{attention}_space_time.safetensors"))
    golden = load_file(shared(f"goldens/timesformer_{attention}_space_time.io.safetensors"))
    encoder = build(TimeSformerConfig(**SMALL, attention=attention)).eval()
    head = LinearHead(encoder.spec, 10)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    loaded = load(tables.OFFICIAL, source, shapes)
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    close(head.vectors(encoder(golden["input"].transpose(1, 2))), golden["features"])
    for case in ("", "_6frames", "_64x48"):
        features = encoder(golden[f"input{case}"].transpose(1, 2))
        close(head(features)["logits"], golden[f"logits{case}"])
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


@pytest.mark.parametrize("attention", ["divided", "joint"])
@torch.no_grad()
def test_the_authors_files_both_ways(shared, tmp_path: Path, attention):
    source = load_file(shared(f"goldens/timesformer_{attention}_space_time.safetensors"))
    golden = load_file(shared(f"goldens/timesformer_{attention}_space_time.io.safetensors"))
    torch.save({"epoch": 15, "model_state": source, "optimizer_state": {}, "cfg": "x"}, tmp_path / "a.pyth")
    found = from_path(tmp_path / "a.pyth", network={"heads": 3})
    assert found.config == TimeSformerConfig(**SMALL, attention=attention)
    assert found.preprocessing is not None
    assert found.preprocessing.mean == (0.45, 0.45, 0.45)
    close(answers(found, golden["input"].transpose(1, 2)), golden["logits"])
    longer = found.build(frames=6)
    assert longer.spec.frames == 6
    tokens = longer(golden["input_6frames"].transpose(1, 2)).tokens.x
    close(tokens, found.build()(golden["input_6frames"].transpose(1, 2)).tokens.x)
    convert(tmp_path / "a.pyth", tmp_path / "b.safetensors", to="official", network={"heads": 3})
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    assert from_path(tmp_path / "b.safetensors").config == found.config


def test_old_files_with_patches_as_a_matrix(shared, tmp_path: Path):
    source = load_file(shared("goldens/timesformer_divided_space_time.safetensors"))
    name = "model.patch_embed.proj.weight"
    torch.save({"model_state": {**source, name: source[name].flatten(1)}}, tmp_path / "a.pyth")
    found = from_path(tmp_path / "a.pyth", network={"heads": 3})
    assert torch.equal(found.encoder["embed.project.weight"], source[name])
    torch.save({"model_state": {**source, name: source[name].flatten(1)[:, 1:]}}, tmp_path / "a.pyth")
    with pytest.raises(WeightsError, match="no square patches"):
        from_path(tmp_path / "a.pyth", network={"heads": 3})


HUB = {
    "image_size": 48, "patch_size": 16, "num_frames": 4, "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 80, "num_labels": 5,
}  # fmt: skip


@pytest.mark.parametrize("attention", ["divided", "joint"])
@torch.no_grad()
def test_transformers_both_ways(shaken, tmp_path: Path, attention):
    config = TimesformerConfig(**HUB, attention_type=f"{attention}_space_time")
    theirs = shaken(TimesformerForVideoClassification(config))
    theirs.save_pretrained(tmp_path / "theirs")
    found = from_path(tmp_path / "theirs")
    assert (found.config.heads, found.config.frames, found.config.attention) == (3, 4, attention)
    assert found.config.norm_eps == config.layer_norm_eps
    clips = torch.randn(2, 4, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    wanted = theirs(clips).logits
    close(answers(found, clips), wanted, 3e-6)
    convert(tmp_path / "theirs", tmp_path / "model.safetensors", to="huggingface")
    theirs.config.save_pretrained(tmp_path)
    again, loaded = TimesformerForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(again(clips).logits, wanted, 1e-6)


def test_what_transformers_computes_otherwise_is_refused(shaken, tmp_path: Path):
    TimesformerForVideoClassification(TimesformerConfig(**HUB, attention_type="space_only")).save_pretrained(
        tmp_path
    )
    with pytest.raises(WeightsError, match="space only"):
        from_path(tmp_path)


IMAGES = {
    "vit": ViTConfig(image=64, patch=8, width=48, depth=4, heads=4, gelu="tanh"),
    "deit": DeiTConfig(image=64, patch=8, width=48, depth=4, heads=4, layer_scale=0.3, position="1d_patches"),
    "dinov2": DinoV2Config(image=64, patch=8, width=48, depth=4, heads=4, layer_scale=0.5),
    "mae": MAEConfig(image=64, patch=8, width=48, depth=4, heads=4),
}


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
@torch.no_grad()
def test_an_image_network_starts_it(shaken, tmp_path: Path, family, attention):
    """The clip of one frame, and of equal frames, has the class token that the image network gives the frame."""
    image = shaken(build(IMAGES[family]))
    header = json.dumps({"encoder": describe(image)})
    tensors = {f"encoder.{name}": tensor for name, tensor in image.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"vitrail_encoder": header})
    preset = TimeSformerConfig(image=32, patch=8, width=48, depth=4, heads=4, attention=attention)
    opened = open_weights(tmp_path / "a.safetensors")
    found = over_time(read(opened), preset, "a")
    encoder = build(found.config).eval()
    encoder.load_state_dict(found.weights.encoder)
    assert (encoder.spec.frames, found.config.size) == (8, (64, 64))
    assert any("start the attention over space" in line for line in found.assumed)
    frames = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    wanted = image(frames).tokens.x[:, 0]
    for count in (1, 3) if attention != "joint" else (1,):
        features = encoder(frames[:, None].expand(-1, count, -1, -1, -1))
        close(features.tokens.x[:, 0], wanted, 3e-6)
        close(Pool(encoder.spec)(features), wanted, 3e-6)
    if attention == "divided":
        for block in encoder.blocks:
            assert torch.equal(block.time.attention.qkv.weight, block.attention.qkv.weight)
            assert not block.time.project.weight.any()


def test_the_command_that_starts_it_from_images(tmp_path: Path):
    config = ViTConfig(image=32, patch=8, width=64, depth=4, heads=4)
    encoder = build(config)
    tensors = save(timm.VIT, encoder.state_dict(), LinearHead(encoder.spec, 5).state_dict())
    save_file(tensors, tmp_path / "a.safetensors")
    found = from_path(
        tmp_path / "a.safetensors", "timesformer_digits", {"frames": 5, "attention": "joint", "heads": 4}
    )
    assert (found.config.family, found.config.frames, found.config.attention) == ("timesformer", 5, "joint")
    assert found.head.keys() == {"linear.weight", "linear.bias"}
    with pytest.raises(WeightsError, match=r"patch 8 and not 16.*vitrail models 'timesformer\*'"):
        from_path(tmp_path / "a.safetensors", "timesformer_s", {"heads": 4})
    save_file(save(timm.DINOV2, build(DinoV2Config(28, 7, width=64, depth=2, heads=4, registers=2)).state_dict()),
              tmp_path / "b.safetensors")  # fmt: skip
    with pytest.raises(WeightsError, match="cannot start a TimeSformer"):
        from_path(tmp_path / "b.safetensors", "timesformer_digits", {"heads": 4})


def test_a_training_begins_with_them_for_so_many_frames(tmp_path: Path):
    save_file(save(timm.VIT, build(ViTConfig(image=32, patch=8, width=64, depth=4, heads=4)).state_dict()),
              tmp_path / "a.safetensors")  # fmt: skip
    model = ModelSettings(
        name="timesformer_digits",
        weights=str(tmp_path / "a.safetensors"),
        imgsz=(24, 24),
        frames=5,
        settings={"heads": 4},
    )
    recipe = Recipe(recipe="timesformer", data={"source": "x"}, model=model)
    initial = build_from_recipe(recipe, Truth("class", ("a", "b")))
    encoder = initial.network.encoder
    assert (encoder.spec.frames, encoder.config.size, initial.preprocess.frames) == (5, (24, 24), 5)
    assert encoder.time.table.shape == (1, 5, 64)


def test_published_image_weights_are_the_automatic_start():
    names = [row.name for row in checkpoints.defaults("timesformer_b")]
    assert names[0] == "vit_base_patch16_224.augreg_in21k"
    assert image_network("timesformer_s") == "vit_s16"
    assert checkpoints.classifiers("timesformer_b") == []
    assert checkpoints.listed("timesformer_b") == []


def answers(found: Pretrained, clips: Tensor) -> Tensor:
    encoder = found.build()
    head = LinearHead(encoder.spec, len(found.head["linear.bias"]), pool=found.pool)
    head.load_state_dict(dict(found.head))
    return head(encoder(clips))["logits"]


SIZES = {  # millions of parameters with 400 classes, billions of multiply-adds, as the sheet of the official code has
    ("timesformer_b", "divided"): (121.57, 195.8),
    ("timesformer_hr", "divided"): (122.02, 1702.7),
    ("timesformer_l", "divided"): (121.63, 2379.9),
    ("timesformer_b", "joint"): (86.11, 179.6),
    ("timesformer_b", "space"): (86.11, 140.5),
}


@pytest.mark.parametrize(("name", "attention"), SIZES)
def test_sizes(name, attention):
    with torch.device("meta"):
        encoder = create_encoder(name, settings={"attention": attention})
    params, macs = SIZES[name, attention]
    assert round((count_params(encoder) + 400 * (encoder.spec.width + 1)) / 1e6, 2) == params
    assert count_macs(encoder, encoder.config.size) / 1e9 == pytest.approx(macs, rel=0.003)
