"""Swin against its official outputs and against timm's network, and its sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vitrail.core.errors import SettingError
from vitrail.layers.heads import LinearHead
from vitrail.models.factory import count_macs, create_encoder
from vitrail.models.swin import SwinConfig
from vitrail.runs.network import create_model
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import save
from vitrail.weights.tables import official


@pytest.mark.parametrize("name", ["swin_w7", "swin_w4_ape"])
def test_official_outputs(shared, name):
    source = load_file(shared(f"goldens/{name}.safetensors"))
    golden = load_file(shared(f"goldens/{name}.io.safetensors"))
    found = from_path(shared(f"goldens/{name}.safetensors"))
    encoder = found.build()
    head = LinearHead(encoder.spec, 10)
    head.load_state_dict(found.head)
    with torch.no_grad():
        features = encoder(golden["input"])
        levels = [encoder.norm(golden["stage2"]).transpose(1, 2).reshape(features.levels[-1].shape)]
        torch.testing.assert_close(features.levels[-1], levels[0], rtol=0, atol=3e-5)
        torch.testing.assert_close(features.tokens.x.mean(1), golden["features"], rtol=0, atol=3e-5)
        torch.testing.assert_close(head(features)["logits"], golden["logits"], rtol=0, atol=3e-5)
        for stage in (0, 1):  # the official stages end after the merge
            level = features.levels[stage]
            tokens = features.tokens._replace(x=level.flatten(2).transpose(1, 2), grid=tuple(level.shape[2:]))
            merged = encoder.pyramid.merges[stage](tokens).x
            torch.testing.assert_close(merged, golden[f"stage{stage}"], rtol=0, atol=3e-5)
    back = save(official.SWIN, found.encoder, found.head)
    remade = ("relative_position_index", "attn_mask")
    assert back.keys() == {key for key in source if not key.endswith(remade)}
    assert all(torch.equal(back[key], source[key]) for key in back)


@pytest.mark.parametrize(("image", "window"), [(64, 4), (48, 3)])
def test_timm(shaken, tmp_path: Path, image, window):
    theirs = timm.models.SwinTransformer(
        img_size=image, patch_size=2, window_size=window, embed_dim=16, depths=(2, 2, 2),
        num_heads=(1, 2, 4), num_classes=7,
    )  # fmt: skip
    shaken(theirs)
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors")
    encoder = found.build(image=image)
    head = LinearHead(encoder.spec, 7)
    head.load_state_dict(found.head)
    images = torch.randn(2, 3, image, image, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(head(encoder(images))["logits"], theirs(images), rtol=0, atol=3e-6)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="official")
    convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors", to="timm")
    back = load_file(tmp_path / "c.safetensors")
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items() if key in back)
    assert len(back) == len(list(theirs.parameters()))


SIZES = {
    "swin_t": (28.288, 4.49),
    "swin_s": (49.606, 8.74),
    "swin_b": (87.768, 15.43),
    "swin_b_384": (87.904, 47.08),
    "swin_l": (196.532, 34.48),
    "swin_l_384": (196.736, 103.9),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
    params, macs = SIZES[name]
    head = 1000 * encoder.spec.width
    assert (sum(p.numel() for p in encoder.parameters()) + head + 1000) / 1e6 == pytest.approx(
        params, abs=5e-4
    )
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, encoder.config.image) + head) / 1e9 == pytest.approx(macs, abs=digit)


@pytest.mark.parametrize(("side", "near"), [(250, 224), (256, 224), (400, 448)])
def test_a_size_that_the_windows_do_not_tile_names_one_that_they_do(side, near):
    with torch.device("meta"):
        encoder = create_encoder("swin_t")
        with pytest.raises(SettingError, match=rf"not a multiple of 224.* {near} x {near}\."):
            encoder(torch.zeros(1, 3, side, side))
        assert encoder(torch.zeros(1, 3, near, near)).tokens.grid == (near // 32, near // 32)


@pytest.mark.parametrize(("image", "near"), [(250, "224 and 448"), ((224, 256), "224 and 448"), (96, "224")])
def test_an_image_that_the_windows_do_not_tile_names_those_that_they_do(image, near):
    with pytest.raises(
        SettingError, match=rf"windows of 7 in every stage\. Squares that do are {near} pixels"
    ):
        SwinConfig(image)
    for side in near.split(" and "):
        SwinConfig(int(side))


def test_narrow_heads_are_as_large_as_timms():
    with torch.device("meta"):
        ours = create_model("swin_t_c24", 10)
        theirs = timm.models.swin_transformer.SwinTransformer(
            img_size=256, window_size=8, num_heads=(4, 8, 16, 32), num_classes=10
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_the_names_of_timm():
    with torch.device("meta"):
        assert create_encoder("swin_tiny_patch4_window7_224.ms_in1k").config.family == "swin"
        large = create_encoder("swin_large_patch4_window12_384.ms_in22k")
    assert (large.config.window, large.config.image, large.config.width) == (12, 384, 192)
