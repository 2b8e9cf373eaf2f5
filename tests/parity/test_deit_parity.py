"""DeiT against its official outputs and against timm's DeiT III."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vitrail.layers.heads import DistilledHead
from vitrail.models.deit import DeiTConfig
from vitrail.models.factory import build, count_macs, create_encoder
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import load, save
from vitrail.weights.tables import timm as tables


def test_official_outputs(shared):
    source = load_file(shared("goldens/deit_distilled.safetensors"))
    golden = load_file(shared("goldens/deit_distilled.io.safetensors"))
    config = DeiTConfig(image=64, width=96, depth=3, heads=3, prefix=("cls", "dist"))
    encoder = build(config).eval()
    head = DistilledHead(encoder.spec, 10)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    loaded = load(tables.DEIT_DISTILLED, source, shapes)
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    with torch.no_grad():
        features = encoder(golden["input"])
        said = head(features)  # in training, where it gives both answers too
        for ours, name in (
            (features.tokens.x[:, 0], "feat_cls"),
            (features.tokens.x[:, 1], "feat_dist"),
            (said["train.labels"], "logits_cls"),
            (said["train.teacher"], "logits_dist"),
            (said["logits"], "logits"),
        ):
            torch.testing.assert_close(ours, golden[name], rtol=0, atol=2e-5)
    back = save(tables.DEIT_DISTILLED, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


@pytest.mark.parametrize("spelling", ["timm", "official"])
def test_deit3_of_timm(shaken, tmp_path: Path, spelling: str):
    theirs = timm.models.VisionTransformer(
        img_size=21, patch_size=7, embed_dim=64, depth=3, num_heads=1, num_classes=0,
        no_embed_class=True, init_values=1e-6,
    )  # fmt: skip
    shaken(theirs)
    tensors = theirs.state_dict()
    if spelling == "official":  # blocks.0.gamma_1, as the authors' files have it
        tensors = {re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", key): value for key, value in tensors.items()}
        assert "blocks.0.gamma_1" in tensors
    save_file(tensors, tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors", network={"heads": 1})
    assert (found.config.family, found.config.position) == ("deit", "1d_patches")
    images = torch.randn(2, 3, 21, 21, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, expected = found.build()(images).tokens.x, theirs.forward_features(images)
        torch.testing.assert_close(ours, expected, rtol=0, atol=3e-6)


def test_files_that_look_like_a_vit_s_are_what_the_user_says(tmp_path: Path):
    with torch.device("meta"):
        shapes = save(tables.DEIT, create_encoder("deit_ti16").state_dict())
    save_file({key: torch.zeros(value.shape) for key, value in shapes.items()}, tmp_path / "a.safetensors")
    assert from_path(tmp_path / "a.safetensors").config.family == "vit"
    found = from_path(tmp_path / "a.safetensors", "deit_ti16")
    assert (found.config.family, found.config.resize) == ("deit", "bicubic")


SIZES = {  # millions of parameters with 1000 classes (each head), billions of multiply-adds
    ("deit_ti16", 224): (5.717, 1.25),
    ("deit_s16", 224): (22.051, 4.60),
    ("deit_b16", 224): (86.568, 17.56),
    ("deit_ti16_distilled", 224): (5.911, 1.26),
    ("deit_s16_distilled", 224): (22.436, 4.62),
    ("deit_b16_distilled", 224): (87.338, 17.66),
    ("deit_b16", 384): (86.859, 55.5),
    ("deit_b16_distilled", 384): (87.630, 55.6),
}


@pytest.mark.parametrize(("name", "image"), SIZES)
def test_sizes(name, image):
    with torch.device("meta"):
        encoder = create_encoder(name, image=image)
    heads = len(encoder.spec.prefix) * 1000
    params, macs = SIZES[name, image]
    count = sum(p.numel() for p in encoder.parameters()) + heads * (encoder.spec.width + 1)
    assert count / 1e6 == pytest.approx(params, abs=5.1e-4)
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, image) + heads * encoder.spec.width) / 1e9 == pytest.approx(macs, abs=digit)


@pytest.mark.parametrize("size", ["small", "medium", "base", "large", "huge"])
def test_deit3_has_the_parameters_of_timm(size):
    name = f"deit3_{size}_patch{14 if size == 'huge' else 16}_224"
    with torch.device("meta"):
        theirs, encoder = timm.create_model(name, num_classes=0), create_encoder(f"{name}.fb_in1k")
    assert encoder.config.family == "deit"
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in theirs.parameters())
