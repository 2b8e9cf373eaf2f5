"""CLIP against OpenAI's outputs, transformers and open_clip, with both towers, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from vitrail.core.errors import WeightsError
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.encoder import Encoder
from vitrail.layers.sdpa import Recorder
from vitrail.layers.text_tower import TextTower
from vitrail.models.factory import create_encoder
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.tables.clip import SCALARS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

VISION = {
    "hidden_size": 33, "intermediate_size": 132, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 35,
    "patch_size": 7,
}  # fmt: skip
TEXT = {
    "hidden_size": 22, "intermediate_size": 88, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 53,
    "max_position_embeddings": 13, "bos_token_id": 51, "eos_token_id": 52, "pad_token_id": 0,
}  # fmt: skip


def with_head(found: Pretrained) -> tuple[Encoder, ContrastiveHead]:
    """Our encoder and head of these weights."""
    encoder, own = found.build(), found.settings
    names = ("text_width", "text_depth", "text_heads", "context", "vocabulary_size", "gelu")
    head = ContrastiveHead(encoder.spec, own["embed"], TextTower(*(own[name] for name in names)), pool="cls")
    head.load_state_dict({name: tensor.float() for name, tensor in found.head.items()})
    return encoder, head.eval()


def captions(context: int, words: int) -> Tensor:
    """Texts of three lengths; the end has the largest number, and nothing behind it counts."""
    tokens = torch.randint(1, words - 2, (3, context), generator=torch.Generator().manual_seed(5))
    for row, end in enumerate((3, context // 2, context - 1)):
        tokens[row, end], tokens[row, end + 1 :] = words - 1, 0
    return tokens


def pictures(side: int = 35) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def check(encoder: Encoder, head: ContrastiveHead, image: Tensor, text: Tensor, tokens: Tensor) -> None:
    """The unit vectors of both towers are these."""
    output = head(encoder(pictures(encoder.image_size[0])), {"tokens": tokens})
    torch.testing.assert_close(output["image"], image, rtol=0, atol=3e-6)
    torch.testing.assert_close(output["text"], text, rtol=0, atol=3e-6)


@pytest.fixture
def golden(shared: Callable[[str], Path]) -> tuple[Path, dict[str, Tensor]]:
    return shared("goldens/clip_vit.safetensors"), load_file(shared("goldens/clip_vit.io.safetensors"))


# OpenAI


def as_recorded(path: Path, io: dict[str, Tensor], tolerance: float = 2e-5) -> Pretrained:
    found = from_path(path)
    encoder, head = with_head(found)
    features = encoder(io["input"])
    near = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(head.project(head.pool(features)), io["image_features"], **near)
    torch.testing.assert_close(head.project_text(head.tower(io["tokens"])), io["text_features"], **near)
    output = head(features, {"tokens": io["tokens"]})
    logits = head.logits(output["image"], output["text"])
    torch.testing.assert_close(logits, io["logits_per_image"], **near)
    torch.testing.assert_close(head.logits(output["text"], output["image"]), io["logits_per_text"], **near)
    return found


@torch.no_grad()
def test_openai_both_towers_and_both_logits(golden):
    path, io = golden
    found = as_recorded(path, io)
    assert found.task == "retrieve"
    assert (found.config.heads, found.config.gelu, found.config.size) == (2, "quick", (32, 32))
    assert found.assumed == ()
    assert found.preprocessing is not None
    assert (found.preprocessing.interpolation, found.preprocessing.fit) == ("bicubic", "crop")


@pytest.mark.parametrize("to", ["official", "huggingface", "vitrail"])
@torch.no_grad()
def test_openai_in_every_layout_and_back(golden, tmp_path, to):
    path, io = golden
    convert(path, tmp_path / "other.safetensors", to=to)
    assert as_recorded(tmp_path / "other.safetensors", io).config == from_path(path).config
    convert(tmp_path / "other.safetensors", tmp_path / "back.safetensors", to="official")
    back, source = load_file(tmp_path / "back.safetensors"), load_file(path)
    assert source.keys() - back.keys() == set(SCALARS)
    assert all(torch.equal(back[name], source[name]) for name in back)


class Tree(nn.Module):
    """A module with these tensors, named as in a state dict, as OpenAI's archives have them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        fronts = dict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
        for front in fronts:
            inner = {n.removeprefix(f"{front}."): t for n, t in tensors.items() if n.startswith(f"{front}.")}
            self.add_module(front, Tree(inner))
        for name, tensor in tensors.items():
            if "." not in name:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x


@torch.no_grad()
def test_openai_archive_in_half_precision(golden, tmp_path, monkeypatch):
    path, io = golden
    half = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
    torch.jit.save(torch.jit.script(Tree(half)), tmp_path / "ViT.pt")
    monkeypatch.setattr(torch.jit, "load", None)  # its code is not run
    found = as_recorded(tmp_path / "ViT.pt", io, tolerance=0.05)  # rounded to half precision
    assert all(
        torch.equal(found.head[name], tensor) for name, tensor in from_path(tmp_path / "ViT.pt").head.items()
    )
    assert found.encoder["embed.project.weight"].dtype == torch.float16
    plain = {name: t.float() if t.is_floating_point() else t for name, t in half.items()}
    save_file(plain, tmp_path / "plain.safetensors")
    encoder, whole = found.build(), from_path(tmp_path / "plain.safetensors").build()
    assert torch.equal(encoder(io["input"]).tokens.x, whole(io["input"]).tokens.x)


def test_openai_resnets_are_refused_by_name(tmp_path):
    tensors = {
        "visual.attnpool.positional_embedding": torch.zeros(50, 8),
        "visual.conv1.weight": torch.zeros(2, 3, 3, 3),
    }
    torch.save(tensors, tmp_path / "RN50.pt")
    with pytest.raises(WeightsError, match=r"RN50\.pt is a CLIP whose image tower is a ResNet.*ViT-B/32"):
        from_path(tmp_path / "RN50.pt")


def test_an_incomplete_file_names_what_is_missing(golden, tmp_path):
    whole = load_file(golden[0])
    for name in ("text_projection", "visual.transformer.resblocks.1.ln_2.bias", "ln_final.weight"):
        save_file({key: tensor for key, tensor in whole.items() if key != name}, tmp_path / "cut.safetensors")
        with pytest.raises(WeightsError, match=name):
            from_path(tmp_path / "cut.safetensors")


def test_an_image_tower_alone(golden, tmp_path):
    whole = load_file(golden[0])
    own = {name: tensor for name, tensor in whole.items() if name.startswith("visual.")}
    save_file(own, tmp_path / "image.safetensors")
    found = from_path(tmp_path / "image.safetensors", network={"heads": 2, "gelu": "quick"})
    assert found.task == "classify"
    assert found.head == {}
    assert "left aside: visual" in " ".join(found.assumed)
    assert torch.equal(
        found.build()(pictures(32)).tokens.x, from_path(golden[0]).build()(pictures(32)).tokens.x
    )
    bare = {name.removeprefix("visual."): tensor for name, tensor in own.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    assert from_path(tmp_path / "bare.safetensors", network={"gelu": "quick"}).config == found.config


def test_without_a_word_on_the_gelu_it_is_said_which_one_is_taken(golden, tmp_path):
    whole = {name: tensor for name, tensor in load_file(golden[0]).items() if name not in SCALARS}
    save_file(whole, tmp_path / "plain.safetensors")
    found = from_path(tmp_path / "plain.safetensors")
    assert (found.config.gelu, found.settings["gelu"]) == ("exact", "exact")
    assert any("--network gelu=quick" in line for line in found.assumed)
    quick = from_path(tmp_path / "plain.safetensors", network={"gelu": "quick"})
    assert (quick.config.gelu, quick.settings["gelu"]) == ("quick", "quick")
    assert not any("gelu" in line.lower() for line in quick.assumed)


# transformers


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_transformers_both_ways(shaken, tmp_path, act):
    config = CLIPConfig(
        vision_config={**VISION, "hidden_act": act},
        text_config={**TEXT, "hidden_act": act},
        projection_dim=20,
    )
    theirs = shaken(CLIPModel(config))
    theirs.logit_scale.fill_(2.5)
    theirs.save_pretrained(tmp_path)
    found = from_path(tmp_path)
    assert (found.task, found.config.gelu) == ("retrieve", "quick" if act == "quick_gelu" else "exact")
    encoder, head = with_head(found)
    tokens = captions(13, 53)
    output = theirs(pixel_values=pictures(), input_ids=tokens)
    check(encoder, head, output.image_embeds, output.text_embeds, tokens)
    ours = head(encoder(pictures()), {"tokens": tokens})
    logits = head.logits(ours["image"], ours["text"])
    torch.testing.assert_close(logits, output.logits_per_image, rtol=0, atol=4e-5)
    convert(tmp_path, tmp_path / "back.safetensors", to="huggingface")
    back, source = load_file(tmp_path / "back.safetensors"), load_file(tmp_path / "model.safetensors")
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in back)


@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
@torch.no_grad()
def test_the_image_tower_of_transformers(shaken, tmp_path, kind):
    theirs = shaken(
        kind(
            CLIPVisionConfig(**{**VISION, "intermediate_size": 80, "layer_norm_eps": 1e-3}, projection_dim=20)
        )
    )
    theirs.save_pretrained(tmp_path)
    found = from_path(tmp_path)
    assert (found.task, found.config.hidden, found.config.norm_eps) == ("classify", 80, 1e-3)
    encoder = found.build()
    pooled = getattr(theirs, "vision_model", theirs)(pixel_values=pictures()).pooler_output
    torch.testing.assert_close(encoder(pictures()).tokens.x[:, 0], pooled, rtol=0, atol=3e-6)
    wide = pictures(49)[:, :, :28]
    larger = getattr(theirs, "vision_model", theirs)(pixel_values=wide, interpolate_pos_encoding=True)
    torch.testing.assert_close(encoder(wide).tokens.x[:, 0], larger.pooler_output, rtol=0, atol=3e-6)
    aside = any("left aside: visual_projection" in line for line in found.assumed)
    assert aside == (kind is CLIPVisionModelWithProjection)


@torch.no_grad()
def test_a_classifier_of_transformers_is_left_aside(shaken, tmp_path):
    """It reads the mean of the patches before the last norm."""
    theirs = shaken(
        CLIPForImageClassification(CLIPConfig(vision_config=VISION, text_config=TEXT, num_labels=5))
    )
    theirs.save_pretrained(tmp_path)
    found = from_path(tmp_path)
    pooled = theirs.vision_model(pixel_values=pictures()).pooler_output
    torch.testing.assert_close(found.build()(pictures()).tokens.x[:, 0], pooled, rtol=0, atol=3e-6)
    assert found.head == {}
    assert any("its classifier reads what no head of ours does" in line for line in found.assumed)


@pytest.mark.parametrize(
    "text", [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}, {"intermediate_size": 80}]
)
def test_a_text_tower_that_computes_otherwise_is_left_aside(shaken, tmp_path, text):
    theirs = shaken(
        CLIPModel(CLIPConfig(vision_config=VISION, text_config={**TEXT, **text}, projection_dim=20))
    )
    theirs.save_pretrained(tmp_path)
    found = from_path(tmp_path)
    assert (found.task, found.head) == ("classify", {})
    assert any("left aside" in line and "text_model" in line for line in found.assumed)


# open_clip


def open_clip_network(quick: bool, bias: float | None = None) -> tuple[nn.Module, dict[str, Any]]:
    model = pytest.importorskip("open_clip.model")
    stated: dict[str, Any] = {
        "embed_dim": 20,
        "vision_cfg": {"image_size": 35, "layers": 3, "width": 33, "patch_size": 7, "head_width": 11},
        "text_cfg": {"context_length": 13, "vocab_size": 53, "width": 22, "heads": 2, "layers": 2},
        **({"quick_gelu": True} if quick else {}),
    }
    return model.CLIP(**stated, **({} if bias is None else {"init_logit_bias": bias})), stated


@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_open_clip_both_ways(shaken, tmp_path, quick):
    theirs, stated = open_clip_network(quick)
    shaken(theirs)
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in theirs.state_dict().items()}},
               tmp_path / "open_clip_pytorch_model.bin")  # fmt: skip
    steps = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    said = {"model_cfg": stated, "preprocess_cfg": steps}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    found = from_path(tmp_path)
    assert from_path(tmp_path / "open_clip_pytorch_model.bin").config == found.config
    assert (found.config.gelu, found.config.heads, found.assumed) == ("quick" if quick else "exact", 3, ())
    assert found.preprocessing is not None
    assert (found.preprocessing.mean, found.preprocessing.fit) == ((0.5,) * 3, "squash")
    encoder, head = with_head(found)
    tokens = captions(13, 53)
    image = theirs.encode_image(pictures(), normalize=True)
    check(encoder, head, image, theirs.encode_text(tokens, normalize=True), tokens)
    convert(tmp_path, tmp_path / "back.safetensors", to="official")
    again, _ = open_clip_network(quick)
    again.load_state_dict(load_file(tmp_path / "back.safetensors"))
    assert torch.equal(again.encode_image(pictures(), normalize=True), image)


@torch.no_grad()
def test_open_clip_with_the_bias_of_the_sigmoid_loss(shaken, tmp_path):
    theirs, _ = open_clip_network(False, bias=-10.0)
    shaken(theirs)
    theirs.logit_bias.fill_(-9.5)
    torch.save(theirs.state_dict(), tmp_path / "siglip.pt")
    found = from_path(tmp_path / "siglip.pt", network={"heads": 3})
    assert (found.settings["loss"], float(found.head["bias"])) == ("sigmoid", -9.5)
    convert(tmp_path / "siglip.pt", tmp_path / "back.safetensors", to="official", network={"heads": 3})
    assert torch.equal(load_file(tmp_path / "back.safetensors")["logit_bias"], theirs.logit_bias)
    with pytest.raises(WeightsError, match="--to official"):
        convert(tmp_path / "siglip.pt", tmp_path / "hub.safetensors", to="huggingface", network={"heads": 3})


@torch.no_grad()
def test_open_clip_with_a_text_tower_of_another_kind(shaken, tmp_path):
    theirs, stated = open_clip_network(False)
    shaken(theirs)
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    stated["text_cfg"]["pool_type"] = "last"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": stated}))
    found = from_path(tmp_path)
    assert (found.task, found.head) == ("classify", {})
    assert any("pool_type = last" in line for line in found.assumed)


# timm


@pytest.mark.parametrize("name", ["vit_base_patch32_clip_224", "vit_base_patch16_clip_quickgelu_224",
                                  "vit_large_patch14_clip_336", "vit_huge_patch14_clip_224"])  # fmt: skip
def test_presets_have_the_parameters_of_timm(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
        encoder = create_encoder(name)
    assert encoder.config.family == "clip"
    assert encoder.config.gelu == ("quick" if "quickgelu" in name else "exact")
    assert encoder.config.size == theirs.patch_embed.img_size
    assert encoder.config.heads == theirs.blocks[0].attn.num_heads
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in theirs.parameters())


# Attention


@torch.no_grad()
def test_the_attention_of_both_towers_is_the_explicit_softmax(golden):
    encoder, head = with_head(from_path(golden[0]))
    tokens, images = golden[1]["tokens"], golden[1]["input"]
    seen, heard = Recorder(), Recorder()
    torch.testing.assert_close(
        encoder(images, record=seen).tokens.x, encoder(images).tokens.x, rtol=0, atol=2e-5
    )
    torch.testing.assert_close(head.texts(tokens, heard), head.texts(tokens), rtol=0, atol=3e-6)
    assert (len(seen.maps), seen.maps[0].grid, seen.maps[0].prefix) == (2, (4, 4), 1)
    assert (len(heard.maps), heard.maps[0].grid, heard.maps[0].prefix) == (2, (), 0)
    x = head.tower.embed(tokens) + head.tower.table
    weights = softmax_of(head.tower.blocks[0], x, causal=True)
    torch.testing.assert_close(heard.maps[0].dense(), weights, rtol=0, atol=2e-6)
    assert not heard.maps[1].dense().triu(1).any()  # no token attends to those behind it
    torch.testing.assert_close(heard.maps[1].dense().sum(-1), torch.ones(3, 2, 77), rtol=0, atol=2e-6)
    weights = softmax_of(encoder.blocks[0], encoder.start(images).x, causal=False)
    torch.testing.assert_close(seen.maps[0].dense(), weights, rtol=0, atol=2e-6)


def softmax_of(block: Any, x: Tensor, *, causal: bool) -> Tensor:
    """The attention of a block, from its weights."""
    b, n, d = x.shape
    q, k, _ = block.attention.qkv(block.norm1(x)).view(b, n, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / (d // 2) ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1)


@torch.no_grad()
def test_what_stands_behind_the_end_changes_nothing():
    torch.manual_seed(0)
    tower = TextTower(24, 2, 2, context=13, vocabulary=53).eval()
    tokens = captions(13, 53)
    changed = torch.where(tokens == 0, 7, tokens)
    torch.testing.assert_close(tower(tokens), tower(changed), rtol=0, atol=1e-6)
    torch.testing.assert_close(tower(tokens[:2, :8]), tower(tokens)[:2], rtol=0, atol=1e-6)
