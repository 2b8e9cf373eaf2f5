"""DINOv2 against timm's and transformers' networks, and the real ViT-S/14 against transformers."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from vitrail.layers.encoder import Encoder
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, create_encoder
from vitrail.weights.rules import Table, load, rename_keys, save
from vitrail.weights.tables import huggingface
from vitrail.weights.tables import timm as timm_table

SMALL = {"width": 33, "depth": 3, "heads": 3, "patch": 7, "image": 35}
HUB = {
    "hidden_size": 33, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 7, "image_size": 35,
}  # fmt: skip


def ours(config: DinoV2Config, table: Table, source: dict[str, torch.Tensor]) -> Encoder:
    """Our network with the weights of another library, after a check that they convert back bit by bit."""
    encoder = build(config).eval()
    loaded = load(table, source, {k: tuple(v.shape) for k, v in encoder.state_dict().items()})
    back = save(table, loaded.encoder)
    assert back.keys() == source.keys() - {"embeddings.mask_token"}
    assert all(torch.equal(back[key], source[key]) for key in back)
    encoder.load_state_dict(loaded.encoder)
    return encoder


def pictures(side: int = 35, width: int = 35) -> torch.Tensor:
    return torch.randn(2, 3, side, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(35, 35), (49, 28)])
@pytest.mark.parametrize("registers", [0, 2])
@torch.no_grad()
def test_transformers(shaken, registers, size, tmp_path):
    if registers:
        theirs = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **HUB))
    else:
        theirs = Dinov2Model(Dinov2Config(**HUB))
    shaken(theirs).save_pretrained(tmp_path)
    source = rename_keys(load_file(tmp_path / "model.safetensors"), huggingface.SPELLINGS)
    assert source.keys() == rename_keys(theirs.state_dict(), huggingface.SPELLINGS).keys()
    resize = "bicubic_antialias" if registers else "bicubic"
    encoder = ours(DinoV2Config(registers=registers, resize=resize, **SMALL), huggingface.DINOV2, source)
    images = pictures(*size)
    expected = theirs(images).last_hidden_state
    torch.testing.assert_close(encoder(images).tokens.x, expected, rtol=0, atol=3e-6)


@torch.no_grad()
def test_the_gated_mlp(shaken, tmp_path):
    theirs = Dinov2Model(Dinov2Config(use_swiglu_ffn=True, **HUB))
    shaken(theirs).save_pretrained(tmp_path)
    source = rename_keys(load_file(tmp_path / "model.safetensors"), huggingface.SPELLINGS)
    hidden = source["encoder.layer.0.mlp.weights_out.weight"].shape[1]
    config = DinoV2Config(mlp="swiglu", hidden=hidden, **SMALL)
    encoder = ours(config, huggingface.DINOV2_SWIGLU, source)
    expected = theirs(pictures()).last_hidden_state
    torch.testing.assert_close(encoder(pictures()).tokens.x, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("size", [(35, 35), (49, 28)])
@torch.no_grad()
def test_timm(shaken, registers, size):
    more = {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    theirs = timm.models.VisionTransformer(
        img_size=35, patch_size=7, embed_dim=33, depth=3, num_heads=3, num_classes=0,
        init_values=1e-5, dynamic_img_size=True, **more,
    )  # fmt: skip
    shaken(theirs)
    config = DinoV2Config(
        registers=registers,
        position="1d_patches" if registers else "1d",
        resize="bicubic_antialias",
        **SMALL,
    )
    encoder = ours(config, timm_table.DINOV2, theirs.state_dict())
    images = pictures(*size)
    expected = theirs.forward_features(images)
    torch.testing.assert_close(encoder(images).tokens.x, expected, rtol=0, atol=3e-6)


@torch.no_grad()
def test_the_real_network(shared):
    folder = shared("weights/dinov2-small-saliency")
    source = load_file(folder / "model.safetensors")
    encoder = ours(DinoV2Config(), huggingface.DINOV2, source)
    theirs = Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
    for size in ((224, 224), (518, 266)):
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3))
        expected = theirs(images).last_hidden_state
        torch.testing.assert_close(encoder(images).tokens.x, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", ["small", "base", "large", "giant"])
@pytest.mark.parametrize("registers", ["", "reg4_"])
def test_presets_have_the_parameters_of_timm(name, registers):
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{name}_patch14_{registers}dinov2", num_classes=0)
        encoder = create_encoder(f"vit_{name}_patch14_{registers}dinov2.lvd142m")
    # timm folds the place of the class token into the token where there are registers.
    fewer = encoder.spec.width if registers else 0
    assert encoder.config.family == "dinov2"
    count = sum(p.numel() for p in encoder.parameters())
    assert count - fewer == sum(p.numel() for p in theirs.parameters())
