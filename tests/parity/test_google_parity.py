"""Google's ViT: official outputs through our table, bitwise back, every spelling; timm reads ours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from vitrail.layers.heads import LinearHead
from vitrail.layers.tokens import Features
from vitrail.models.factory import build, count_macs, create_encoder
from vitrail.models.vit import ViTConfig
from vitrail.weights.rules import Loaded, load, save
from vitrail.weights.tables import google

GOLDENS = {
    "token": (ViTConfig(image=64, width=96, depth=3, heads=3, gelu="tanh"), 2e-5),
    "prelogits": (ViTConfig(image=64, width=96, depth=3, heads=3, gelu="tanh"), 2e-5),
    "gap": (ViTConfig(image=64, patch=8, width=96, depth=3, heads=3, gelu="tanh", prefix=()), 2e-5),
    "hybrid_r_stem": (
        ViTConfig(image=64, patch=8, width=96, depth=3, heads=3, gelu="tanh", stem=(32,)),
        2e-5,
    ),
    "hybrid_r_16": (
        ViTConfig(image=64, patch=1, width=96, depth=3, heads=3, gelu="tanh", stem=(32, 1, 2, 1)),
        5e-5,
    ),
}


def network(config: ViTConfig, loaded: Loaded) -> tuple[nn.Module, nn.Module]:
    encoder = build(config).eval()
    encoder.load_state_dict(loaded.encoder)
    hidden = len(loaded.head["pre_logits.weight"]) if "pre_logits.weight" in loaded.head else 0
    head = LinearHead(encoder.spec, len(loaded.head["linear.weight"]), hidden=hidden)
    head.load_state_dict(loaded.head)
    return encoder, head


def shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(config).state_dict().items()}


@pytest.mark.parametrize("name", GOLDENS)
def test_official_outputs(shared, name):
    config, tolerance = GOLDENS[name]
    with np.load(shared(f"goldens/vit_flax_{name}.npz")) as file:
        source = {key: torch.from_numpy(file[key]) for key in file.files}
    golden = load_file(shared(f"goldens/vit_flax_{name}.io.safetensors"))
    loaded = load(google.vit(), google.renamed(source), shapes(config))
    encoder, head = network(config, loaded)
    with torch.no_grad():
        features = encoder(golden["input"])
        tokens, logits = features.tokens.x, head(features)["logits"]
    torch.testing.assert_close(tokens, golden["tokens"], rtol=0, atol=tolerance)
    torch.testing.assert_close(logits, golden["logits"], rtol=0, atol=tolerance)
    back = save(google.vit(config.heads), loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    assert all(back[key].shape == source[key].shape for key in source)


@pytest.mark.parametrize("name", ["token", "hybrid_r_16"])
def test_the_probes_are_seen(shared, name):
    """A porting error changes the output here as it does in the golden data: the comparison detects it."""
    config, tolerance = GOLDENS[name]
    probe = json.loads(shared(f"goldens/vit_flax_{name}.json").read_text())["probes"]["GELU tanh->exact"]
    with np.load(shared(f"goldens/vit_flax_{name}.npz")) as file:
        source = {key: torch.from_numpy(file[key]) for key in file.files}
    golden = load_file(shared(f"goldens/vit_flax_{name}.io.safetensors"))
    loaded = load(google.vit(), google.renamed(source), shapes(config))
    exact = ViTConfig(**{key: getattr(config, key) for key in config.__slots__} | {"gelu": "exact"})
    encoder, head = network(exact, loaded)
    with torch.no_grad():
        off = (head(encoder(golden["input"]))["logits"] - golden["logits"]).abs().max().item()
    assert off == pytest.approx(probe, rel=0.05)
    assert off > 5 * tolerance


def linen(name: str) -> str:
    name = name.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
    return name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")


@pytest.mark.parametrize("spelling", ["linen", "opt/target/", "params/", "params/img/", "top", "scan"])
def test_every_spelling(shaken, spelling):
    config = ViTConfig(image=24, patch=8, width=36, depth=2, heads=3, hidden=40)
    encoder = shaken(build(config))
    source = save(google.vit(3), encoder.state_dict())
    match spelling:
        case "linen":
            other = {linen(key): value for key, value in source.items()}
        case "top":
            key = "Transformer/posembed_input/pos_embedding"
            other = {k: v for k, v in source.items() if k != key} | {"pos_embedding": source[key]}
        case "scan":
            other = {key: value for key, value in source.items() if "encoderblock" not in key}
            for key in [key for key in source if "encoderblock_0" in key]:
                pair = [source[key], source[key.replace("block_0", "block_1")]]
                other[linen(key.replace("block_0", "block"))] = torch.stack(pair)
        case prefix:
            other = {f"{prefix}{key}": value for key, value in source.items()}
    loaded = load(google.vit(), google.renamed(other), shapes(config))
    assert all(torch.equal(loaded.encoder[key], value) for key, value in encoder.state_dict().items())


def test_timm_reads_what_we_write(shaken, tmp_path):
    config = ViTConfig(image=24, patch=8, width=36, depth=2, heads=3, hidden=144)
    encoder = shaken(build(config))
    head = shaken(LinearHead(encoder.spec, 7))
    tensors = save(google.vit(3), encoder.state_dict(), head.state_dict())
    np.savez(tmp_path / "ours.npz", **{key: value.numpy() for key, value in tensors.items()})
    theirs = timm.models.VisionTransformer(
        img_size=24, patch_size=8, embed_dim=36, depth=2, num_heads=3, num_classes=7
    ).eval()
    theirs.load_pretrained(str(tmp_path / "ours.npz"))
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = head(encoder(images))["logits"]
        torch.testing.assert_close(logits, theirs(images), rtol=0, atol=2e-6)


def test_timm_reads_our_attention_pooling(shaken, tmp_path):
    config = ViTConfig(image=32, patch=8, width=64, depth=2, heads=1, prefix=())
    encoder = shaken(build(config))
    head = shaken(LinearHead(encoder.spec, 7, pool="attention"))
    tensors = save(google.vit(1), encoder.state_dict(), head.state_dict())
    back = load(google.vit(), google.renamed(tensors), shapes(config))
    assert all(torch.equal(back.head[key], value) for key, value in head.state_dict().items())
    key = "Transformer/posembed_input/pos_embedding"  # timm knows this head from big_vision's files alone
    tensors["pos_embedding"] = tensors.pop(key)
    names = {name: f"params/{linen(name)}" for name in tensors}
    np.savez(tmp_path / "ours.npz", **{names[name]: value.numpy() for name, value in tensors.items()})
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=7,
        class_token=False, global_pool="map", fc_norm=False,
    ).eval()  # fmt: skip
    theirs.load_pretrained(str(tmp_path / "ours.npz"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(head(encoder(images))["logits"], theirs(images), rtol=0, atol=2e-6)


HYBRIDS = {"vit_r_ti16": (6.338, 0.43), "vit_r26_s32": (36.432, 3.46), "vit_r50_b16": (98.659, 21.5)}
HYBRIDS["vit_r50_l32"] = (328.995, 19.4)


@pytest.mark.parametrize("name", HYBRIDS)
def test_sizes_of_hybrids(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
    params, macs = HYBRIDS[name]
    head = 1000 * encoder.spec.width
    assert (sum(p.numel() for p in encoder.parameters()) + head + 1000) / 1e6 == pytest.approx(
        params, abs=5e-4
    )
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, 224) + head) / 1e9 == pytest.approx(macs, abs=digit)


def test_the_names_of_timm_are_ours():
    for theirs, preset in (
        ("vit_tiny_r_s16_p8_384", "vit_r_ti16"),
        ("vit_small_r26_s32_224", "vit_r26_s32"),
        ("vit_base_r50_s16_384.orig_in21k_ft_in1k", "vit_r50_b16"),
        ("vit_large_r50_s32_224", "vit_r50_l32"),
    ):
        with torch.device("meta"):
            encoder = create_encoder(theirs)
            ours = create_encoder(preset)
        assert {k: v.shape for k, v in encoder.state_dict().items() if "position" not in k} == {
            k: v.shape for k, v in ours.state_dict().items() if "position" not in k
        }


def test_features_come_as_features():
    encoder = create_encoder("vit_r_ti16", image=64).eval()
    assert isinstance(encoder(torch.zeros(1, 3, 64, 96)), Features)
    assert encoder(torch.zeros(1, 3, 64, 96)).tokens.grid == (2, 3)
