"""DETR against the goldens of its authors' code and against transformers, through its files; its training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DetrConfig as TheirConfig
from transformers import DetrForObjectDetection, DetrForSegmentation, ResNetConfig, TimmBackboneConfig

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.batch import Batch
from vitrail.layers.detr_transformer import TablePosition, places
from vitrail.layers.tokens import Tokens
from vitrail.models.detr import PRESETS, AttentionShares, DetrConfig, FineMasks
from vitrail.models.factory import build
from vitrail.runs.network import Network, build_network, build_task
from vitrail.runs.published_head import with_own_head
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.rules import Table, load, rename_keys, save
from vitrail.weights.tables import detr as tables

TINY = DetrConfig(
    (48, 64), layers=(1, 2, 1, 1), planes=(8, 16, 32, 64), width=64, hidden=96, depth=2, decoder=3, queries=7
)


@pytest.fixture
def golden(shared):
    """Return a function to the file of a golden, and to its inputs and outputs."""

    def find(name: str) -> tuple[Path, dict[str, torch.Tensor]]:
        return shared(f"goldens/{name}.safetensors"), load_file(shared(f"goldens/{name}.io.safetensors"))

    return find


def network_of(found: Pretrained) -> Network:
    """Return the network with its published head, with all of its outputs, also those that stand for no class."""
    network = with_own_head(found).network
    network.head.load_state_dict(dict(found.head))
    return network


def same(one: torch.Tensor, other: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def confidences(logits: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of the classes in a softmax with "no object", (…, k)."""
    return logits.softmax(-1)[..., :-1]


# Goldens


@pytest.mark.parametrize("dilated", [False, True])
@torch.no_grad()
def test_the_authors_code(golden, dilated):
    path, io = golden("detr")
    front = "dc5/" if dilated else ""
    found = from_path(path, network={"heads": 4, "dilated": dilated})
    assert found.task == "detect"
    assert found.config == DetrConfig(
        (1056, 1056), 3, (1, 2, 1, 1), (8, 16, 32, 64), dilated, 64, 4, 128, 2, 3, 12
    )
    network = network_of(found)
    inputs = {"images": io["pixel_values"], "valid": ~io["pixel_mask_padded_is_true"]}
    maps = network.encoder.backbone(inputs["images"])
    same(maps[-1], io[f"{front}backbone"], 2e-5)
    output = network(inputs)
    same(output["logits"].sigmoid(), confidences(io[f"{front}pred_logits"]), 2e-5)
    same(output["boxes"], io[f"{front}pred_boxes"], 2e-5)
    if dilated:
        return
    tokens = Tokens(torch.zeros(2, 12, 64), (3, 4))
    where = places(network.encoder.position, tokens, inputs["valid"])
    same(where.position.mT.unflatten(-1, (3, 4)), io["pos"], 1e-6)
    assert torch.equal(where.bias.flatten(1).isinf().unflatten(-1, (3, 4)), io["feature_mask"])
    features = network.encode(inputs)
    same(features.tokens.map(), io["memory"], 2e-4)
    vectors = network.head.decoder(features.tokens.x, where)
    for number, (vector, wanted) in enumerate(zip(vectors, io["hs"], strict=True)):
        same(vector, wanted, 2e-4)
        logits, boxes = network.head.classes(vector), network.head.change(vector).sigmoid()
        last = number == len(vectors) - 1
        same(logits, io["pred_logits" if last else f"aux{number}_logits"], 2e-4)
        same(boxes, io["pred_boxes" if last else f"aux{number}_boxes"], 2e-5)


@torch.no_grad()
def test_the_authors_norms_before_and_learned_positions(golden):
    """Their file has no backbone, so the parts are loaded one by one."""
    path, io = golden("detr_prenorm_learnedpos")
    network = build_network(
        build(
            DetrConfig(
                (96, 128), 3, (1, 2, 1, 1), (8, 16, 32, 64), False, 64, 4, 128, 2, 3, 12, "learned", True
            )
        ),
        build_task("detect", [f"class {n}" for n in range(7)], {}),
    ).eval()
    table, source = tables.table(), load_file(path)
    bare = Table(table.name, table.rules[1:], table.head)
    own = {name: tuple(t.shape) for name, t in network.encoder.state_dict().items() if "backbone" not in name}
    shapes = {name: tuple(t.shape) for name, t in network.head.state_dict().items()}
    loaded = load(bare, source, own, head=shapes)
    network.encoder.load_state_dict(loaded.encoder, strict=False)
    network.head.load_state_dict(loaded.head)
    back = save(bare, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)
    valid = ~io["pixel_mask_padded_is_true"]
    features = network.encoder.read([io["backbone"]], valid)
    same(features.tokens.map(), io["memory"], 1e-4)
    where = network.head.places(features, {"valid": valid})
    same(where.position.mT.unflatten(-1, (3, 4)).expand(2, -1, -1, -1), io["pos"], 0)
    for vector, wanted in zip(network.head.decoder(features.tokens.x, where), io["hs"], strict=True):
        same(vector, wanted, 1e-4)
    output = network.head(features, {"valid": valid})
    same(output["logits"].sigmoid(), confidences(io["pred_logits"]), 2e-5)
    same(output["boxes"], io["pred_boxes"], 2e-5)


@torch.no_grad()
def test_the_authors_head_of_masks(golden):
    path, io = golden("detr_maskhead")
    looks, masks = AttentionShares(64, 8), FineMasks(72, (1024, 512, 256), 256)
    shapes = {f"looks.{name}": tuple(t.shape) for name, t in looks.state_dict().items()}
    shapes |= {f"masks.{name}": tuple(t.shape) for name, t in masks.state_dict().items()}
    loaded = load(Table("masks", tables.MASKS), load_file(path), shapes).encoder
    for front, module in (("looks.", looks), ("masks.", masks)):
        module.load_state_dict(
            {name.removeprefix(front): t for name, t in loaded.items() if name.startswith(front)}
        )
    bias = torch.zeros(2, 1, 1, 12).masked_fill(io["mask"].flatten(1)[:, None, None], -torch.inf)
    shares = looks(io["hs"], Tokens(io["memory"].flatten(2).mT, (3, 4)), bias)
    same(shares, io["bbox_mask"], 1e-6)
    found = masks(io["src"], shares, (io["fpn0"], io["fpn1"], io["fpn2"]))
    same(found.flatten(0, 1)[:, None], io["seg_masks"], 1e-4)


def test_the_authors_file_comes_back_bit_by_bit(golden, tmp_path):
    path, _ = golden("detr")
    convert(path, tmp_path / "back.safetensors", to="official", network={"heads": 4})
    back, source = load_file(tmp_path / "back.safetensors"), load_file(path)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)
    assert from_path(tmp_path / "back.safetensors").config.heads == 4


# transformers


def stated(**more: Any) -> TheirConfig:
    backbone = ResNetConfig(embedding_size=64, hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 1, 1],
                            out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
             "num_queries": 7, "id2label": {0: "N/A", 1: "cat", 2: "dog"}}  # fmt: skip
    return TheirConfig(**{"backbone_config": backbone, **sizes, **more})


BOXES, MASKS = DetrForObjectDetection, DetrForSegmentation


@pytest.fixture
def folder(shaken, tmp_path):
    """Return a function that writes a shaken network of transformers to a folder, and returns both."""

    def write(kind: type, config: TheirConfig, **more: Any) -> tuple[Any, Path]:
        theirs = shaken(kind(config))
        theirs.save_pretrained(tmp_path / "theirs", **more)
        return theirs, tmp_path / "theirs"

    return write


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    valid = torch.ones(2, 96, 128, dtype=torch.bool)
    valid[1, 70:], valid[1, :, 90:] = False, False
    return images, valid


@pytest.mark.parametrize("kind", [BOXES, MASKS])
@pytest.mark.parametrize("position", ["sine", "learned"])
@torch.no_grad()
def test_transformers(folder, kind, position):
    theirs, place = folder(kind, stated(position_embedding_type=position))
    found = from_path(place)
    assert found.task == ("instances" if kind is MASKS else "detect")
    assert found.labels == ("N/A", "cat", "dog")
    assert found.config == DetrConfig(
        (1056, 1056), 3, (1, 2, 1, 1), (8, 16, 32, 64), False, 64, 8, 96, 2, 3, 7, position
    )
    assert not found.assumed
    network = network_of(found)
    images, valid = padded()
    for inputs in ({"images": images, "valid": valid}, {"images": images}):
        output, expected = network(inputs), theirs(images, inputs.get("valid", torch.ones_like(valid)).long())
        same(output["logits"].sigmoid(), confidences(expected.logits), 1e-5)
        same(output["boxes"], expected.pred_boxes, 1e-5)
        if kind is MASKS:
            largest = float(expected.pred_masks.abs().max())
            same(output["masks"], expected.pred_masks, 1e-5 * largest)


@pytest.mark.parametrize("kind", [BOXES, MASKS])
def test_every_tensor_comes_back_bit_by_bit(folder, tmp_path, kind):
    _, place = folder(kind, stated())
    source = rename_keys(load_file(place / "model.safetensors"), tables.SPELLINGS)
    for layout in ("huggingface", "official"):
        target = tmp_path / f"{layout}.safetensors"
        found = convert(place, target, to=layout)
        again = from_path(target)
        assert (again.config, again.task) == (found.config, found.task)
        for one, other in ((found.encoder, again.encoder), (found.head, again.head)):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)
    back = load_file(tmp_path / "huggingface.safetensors")
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)


def test_a_backbone_of_timm_has_the_names_of_the_published_files(folder, tmp_path):
    """Dilated as transformers asks timm for it."""
    backbone = TimmBackboneConfig(backbone="resnet26", use_pretrained_backbone=False, features_only=True,
                                  out_indices=[1, 2, 3, 4], output_stride=16)  # fmt: skip
    theirs, place = folder(BOXES, stated(backbone_config=backbone, dilation=True))
    found = from_path(place)
    assert (found.config.dilated, found.config.layers) == (True, (2, 2, 2, 2))
    convert(place, tmp_path / "back.safetensors", to="huggingface")
    back, source = load_file(tmp_path / "back.safetensors"), load_file(place / "model.safetensors")
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)
    images, valid = padded()
    with torch.no_grad():
        output, expected = network_of(found)({"images": images, "valid": valid}), theirs(images, valid.long())
    same(output["logits"].sigmoid(), confidences(expected.logits), 1e-5)
    same(output["boxes"], expected.pred_boxes, 1e-5)


@pytest.mark.parametrize("kind", [BOXES, MASKS])
def test_names_in_memory_are_read_too(folder, kind):
    _, place = folder(kind, stated())
    wanted = from_path(place)
    kind.from_pretrained(place).save_pretrained(place, save_original_format=False)
    assert not any("out_proj" in name for name in load_file(place / "model.safetensors"))
    found = from_path(place)
    assert found.config == wanted.config
    for one, other in ((found.encoder, wanted.encoder), (found.head, wanted.head)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


# Files


def tiny(task: str = "detect", config: DetrConfig = TINY, classes: int = 3) -> Network:
    torch.manual_seed(0)
    return build_network(build(config), build_task(task, [f"class {n}" for n in range(classes)], {}))


def official(network: Network) -> dict[str, torch.Tensor]:
    masks = "masks.last.bias" in network.head.state_dict()
    return save(tables.table(masks=masks), network.encoder.state_dict(), network.head.state_dict())


def test_the_stride_of_a_file_is_stated_or_said_to_be_assumed(tmp_path):
    tensors = official(tiny())
    for name in ("detr-r50-e632da11.pth", "detr-r50-dc5-f0fb7ef5.pth"):
        torch.save({"model": tensors}, tmp_path / name)
    plain, dilated = (
        from_path(tmp_path / name) for name in ("detr-r50-e632da11.pth", "detr-r50-dc5-f0fb7ef5.pth")
    )
    assert (plain.config.dilated, dilated.config.dilated) == (False, True)
    assert any("at stride 32" in line for line in plain.assumed)
    assert not dilated.assumed
    said = argparse.Namespace(dilation=True, nheads=4, enc_layers=2)
    torch.save({"model": tensors, "args": said}, tmp_path / "own.pth")
    found = from_path(tmp_path / "own.pth")
    assert (found.config.dilated, found.config.heads) == (True, 4)
    torch.save({"model": tensors}, tmp_path / "own.pth")
    assert from_path(tmp_path / "own.pth", network={"dilated": True}).config.dilated
    assert found.preprocessing is not None
    assert (found.preprocessing.fit, found.preprocessing.image) == ("pad", (1056, 1056))


def test_masks_tell_the_number_of_heads(tmp_path):
    four = DetrConfig(
        (48, 64), layers=(1, 1, 1, 1), planes=(8, 8, 8, 8), width=64, heads=16, hidden=32, depth=1, decoder=1
    )
    torch.save({"model": official(tiny("instances", four))}, tmp_path / "panoptic.pth")
    found = from_path(tmp_path / "panoptic.pth")
    assert (found.config.heads, found.task) == (16, "instances")


def test_the_91_numbers_of_coco_have_their_names(tmp_path):
    torch.save({"model": official(tiny(classes=91))}, tmp_path / "detr.pth")
    answering = with_own_head(from_path(tmp_path / "detr.pth"))
    assert answering.task.labels[:2] == ("unused 0", "person")
    assert any("COCO" in line for line in answering.notes)


def test_what_computes_otherwise_is_refused(folder):
    _, place = folder(BOXES, stated(activation_function="gelu"))
    with pytest.raises(WeightsError, match="activation_function = 'gelu'"):
        from_path(place)


def test_a_missing_tensor_is_named(tmp_path):
    tensors = official(tiny())
    del tensors["transformer.decoder.layers.1.norm3.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"layers.1.norm3.bias missing"):
        from_path(tmp_path / "less.safetensors")


def test_a_preset_is_known_by_its_stride():
    assert {name: config.dilated for name, config in PRESETS.items() if "r50" in name} == {
        "detr_r50": False, "detr_r50_dc5": True
    }  # fmt: skip


@pytest.mark.parametrize(("name", "millions"), [("detr_r50", 41.525), ("detr_r101", 60.465)])
def test_parameters_are_those_of_the_paper(name, millions):
    with torch.device("meta"):
        network = tiny(config=PRESETS[name], classes=91)
    assert sum(one.numel() for one in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


# Padding, sizes, training


@torch.no_grad()
def test_padding_changes_nothing_beyond_the_border_of_the_convolutions():
    """Cells of padding are neither attended to nor counted: their values do not matter."""
    network = tiny().eval()
    maps = [torch.randn(1, width, 4, 6) for width in (32, 64, 128, 256)]
    valid = torch.ones(1, 128, 192, dtype=torch.bool)
    valid[:, :, 96:] = False
    other = [level.clone() for level in maps]
    other[-1][..., 3:] += 5
    one, two = (network.head(network.encoder.read(level, valid), {"valid": valid}) for level in (maps, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_learned_positions_end_somewhere():
    with pytest.raises(SettingError, match="50 x 50 cells, and the image has 51 x 2"):
        TablePosition(8)((51, 2), None, torch.zeros(1))


def test_settings_that_fit_nothing_are_refused():
    with pytest.raises(SettingError, match="multiple of 8 heads and of 4"):
        DetrConfig(width=100)
    with pytest.raises(SettingError, match="four stages"):
        DetrConfig(layers=(1, 2, 3))
    with pytest.raises(SettingError, match="the heads a multiple of 8, which is 68"):
        tiny("instances", DetrConfig((48, 64), layers=(1, 1, 1, 1), planes=(8, 8, 8, 8), width=64, heads=4))


def batch(task: str) -> Batch[Any]:
    """Two images: one with a box (and a disc of it), one without any."""
    boxes = torch.tensor([[0.5, 0.4, 0.3, 0.5]])
    none = torch.zeros(0, 4)
    full = [(boxes, torch.tensor([1]), none), (none, torch.zeros(0, dtype=torch.long), none)]
    if task == "instances":
        cover = torch.zeros(1, 12, 16, dtype=torch.uint8)
        cover[:, 2:7, 6:10] = 255
        full = [(*full[0], cover), (*full[1], cover[:0])]
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(3))
    return Batch({"images": images}, full, [])


@pytest.mark.parametrize("name", ["detect", "instances"])
def test_a_training_step_lowers_the_loss_and_leaves_the_norms(name):
    task = build_task(name, ["cat", "dog"], {})
    torch.manual_seed(0)
    config = DetrConfig((48, 64), layers=(1, 1, 1, 1), planes=(8, 8, 8, 8), width=64, hidden=96, depth=1, decoder=2,
                        queries=7, dropout=0.0)  # fmt: skip
    network = build_network(build(config), task).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    steps = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        found = task.training_loss(network, batch(name), np.random.default_rng(0), 0.6)
        total = sum(found.parts.values())
        steps.zero_grad()
        total.backward()
        steps.step()
        losses.append(float(total.detach()))
    assert losses[-1] < losses[0]
    still = {key for key, tensor in network.state_dict().items() if torch.equal(tensor, before[key])}
    frozen = {key for key in before if ".bn" in key or "downsample.1" in key}
    frozen |= {key for key in before if key.startswith(("encoder.backbone.conv1", "encoder.backbone.layer1"))}
    assert still == frozen
    assert ("mask_pixels" in found.parts) == (name == "instances")
