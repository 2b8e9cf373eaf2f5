"""ViT against timm's and transformers' networks, through the shipped tables; sizes as measured."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig as HubConfig
from transformers import ViTForImageClassification

from vitrail.layers.heads import LinearHead
from vitrail.models.factory import build, count_macs, create_encoder, list_models
from vitrail.models.vit import ViTConfig
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import Table, load, rename_keys, save
from vitrail.weights.tables import huggingface
from vitrail.weights.tables import timm as timm_table

CLASSES = 13
SMALL = {"width": 33, "depth": 3, "heads": 3, "hidden": 41, "patch": 7, "channels": 5}


def ours(
    config: ViTConfig, table: Table, source: dict[str, torch.Tensor], pool: str | None = None
) -> nn.Module:
    """Our network with the weights of another library, after a check that they convert back bit by bit."""
    encoder = build(config).eval()
    loaded = load(table, source, {k: tuple(v.shape) for k, v in encoder.state_dict().items()})
    back = save(table, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    head = LinearHead(encoder.spec, CLASSES, pool=pool).eval()
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    return nn.Sequential(encoder, head)


def timm_vit(image: tuple[int, int], **more: object) -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=image, patch_size=7, in_chans=5, embed_dim=33, depth=3, num_heads=3,
        mlp_ratio=41 / 33, num_classes=CLASSES, **more,
    )  # fmt: skip


@pytest.mark.parametrize("gelu", ["exact", "tanh"])
def test_timm(shaken, gelu):
    act = nn.GELU if gelu == "exact" else lambda: nn.GELU(approximate="tanh")
    theirs = shaken(timm_vit((21, 35), act_layer=act))
    network = ours(ViTConfig(image=(21, 35), gelu=gelu, **SMALL), timm_table.VIT, theirs.state_dict())
    images = torch.randn(2, 5, 21, 35, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(images)["logits"], theirs(images), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "stem", "image"),
    [("vit_tiny_r_s16_p8_224", (64,), 64), ("vit_small_r26_s32_224", (64, 2, 2, 2, 2), 96)],
)
def test_timm_s_hybrids(shaken, tmp_path, name, stem, image):
    """timm's own hybrids, with the two constants replaced in which they differ from the official code."""
    more = {"embed_dim": 64, "depth": 2, "num_heads": 1, "num_classes": CLASSES, "img_size": image}
    theirs = shaken(timm.create_model(name, **more))
    for part in theirs.modules():
        if isinstance(part, nn.GroupNorm):
            part.eps = 1e-6
        elif isinstance(part, timm.layers.StdConv2dSame):
            part.weight.data *= 1000  # standardised anyway; so large, its eps is none
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors", network={"heads": 1})
    assert (found.config.family, found.config.stem) == ("vit", stem)
    images = torch.randn(2, 3, image, image, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, expected = found.build()(images).tokens.x, theirs.forward_features(images)
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-5)


def test_timm_without_class_token(shaken):
    more = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    theirs = shaken(timm_vit((21, 35), **more))
    network = ours(ViTConfig(image=(21, 35), prefix=(), **SMALL), timm_table.VIT, theirs.state_dict())
    images = torch.randn(2, 5, 21, 35, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(images)["logits"], theirs(images), rtol=0, atol=2e-6)


def test_timm_positions_for_patches_alone(shaken):
    theirs = shaken(timm_vit((21, 35), no_embed_class=True))
    config = ViTConfig(image=(21, 35), position="1d_patches", **SMALL)
    network = ours(config, timm_table.VIT, theirs.state_dict())
    images = torch.randn(2, 5, 21, 35, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(images)["logits"], theirs(images), rtol=0, atol=2e-6)


def test_timm_attention_pooling(shaken):
    more = {"class_token": False, "global_pool": "map", "fc_norm": False}
    # 64 wide: one head in both; timm's pooling takes the heads of the network, ours is 64 numbers a head.
    theirs = shaken(
        timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=CLASSES, **more
        )
    )
    config = ViTConfig(image=32, patch=8, width=64, depth=2, heads=1, prefix=())
    network = ours(config, timm_table.VIT, theirs.state_dict(), pool="attention")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(images)["logits"], theirs(images), rtol=0, atol=2e-6)


@pytest.mark.parametrize("spelling", ["memory", "file"])
def test_transformers(shaken, spelling, tmp_path):
    theirs = ViTForImageClassification(
        HubConfig(
            hidden_size=33, num_hidden_layers=3, num_attention_heads=3, intermediate_size=41,
            image_size=[21, 35], patch_size=7, num_channels=5, num_labels=CLASSES, layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    theirs = shaken(theirs)
    names = huggingface.SPELLINGS
    if spelling == "file":
        theirs.save_pretrained(tmp_path)
        from safetensors.torch import load_file

        source = rename_keys(load_file(tmp_path / "model.safetensors"), names)
    else:
        source = rename_keys(theirs.state_dict(), names)
    network = ours(ViTConfig(image=(21, 35), **SMALL), huggingface.VIT, source)
    images = torch.randn(2, 5, 21, 35, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(images)["logits"], theirs(images).logits, rtol=0, atol=2e-6)


PAPER = {  # millions of parameters with 1000 classes, billions of multiply-adds at 224 pixels
    "vit_ti16": (5.717, 1.25),
    "vit_s32": (22.879, 1.14),
    "vit_s16": (22.051, 4.60),
    "vit_b32": (88.224, 4.41),
    "vit_b16": (86.568, 17.56),
    "vit_b8": (86.577, 78.15),
    "vit_l32": (306.535, 15.38),
    "vit_l16": (304.327, 61.56),
    "vit_h14": (632.046, 167.3),
}


@pytest.mark.parametrize("row", [r for r in list_models() if r.name in PAPER], ids=lambda row: row.name)
def test_sizes_of_the_papers(row):
    with torch.device("meta"):
        encoder = create_encoder(row.name)
    head = 1000 * row.width
    params, macs = PAPER[row.name]
    assert (row.params + head + 1000) / 1e6 == pytest.approx(params, abs=5.1e-4)
    # One unit of the last printed digit: counters differ in whether they count the class token's extra row.
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, 224) + head) / 1e9 == pytest.approx(macs, abs=max(digit, 0.01))


@pytest.mark.parametrize(
    ("name", "image", "params", "macs"), [("vit_b16", 384, 86.859, 55.5), ("vit_l16", 384, 304.716, 191.1)]
)
def test_sizes_at_384(name, image, params, macs):
    with torch.device("meta"):
        encoder = create_encoder(name, image=image)
    head = 1000 * encoder.spec.width
    assert (sum(p.numel() for p in encoder.parameters()) + head + 1000) / 1e6 == pytest.approx(
        params, abs=5e-4
    )
    assert (count_macs(encoder, image) + head) / 1e9 == pytest.approx(macs, abs=0.05)
