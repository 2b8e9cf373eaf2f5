"""DETR against its authors' outputs and against transformers: padding, positions, masks, files in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DetrConfig as TheirConfig
from transformers import DetrForObjectDetection, DetrForSegmentation, ResNetConfig

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.truth import Truth
from vitrail.layers.detr_transformer import places
from vitrail.layers.log_odds import log_odds
from vitrail.layers.tokens import Tokens
from vitrail.models.detr import PRESETS, AttentionShares, Detr, DetrConfig, DetrHead, FineMasks
from vitrail.runs.network import build_network
from vitrail.runs.published_head import with_own_head
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.task import Detect
from vitrail.tasks.instances.task import SegmentInstances
from vitrail.weights import rules
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import load
from vitrail.weights.tables import detr

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens"
CLASSES = 7
SMALL = DetrConfig(
    (96, 128), 3, (1, 2, 1, 1), (8, 16, 32, 64), width=64, heads=4, hidden=128, depth=2, decoder=3, queries=12
)


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not GOLDENS.is_dir():
        pytest.skip("the goldens are not here (../shared/goldens)")
    return load_file(GOLDENS / f"{name}.safetensors"), load_file(GOLDENS / f"{name}.io.safetensors")


def taken(config: DetrConfig, state: dict[str, torch.Tensor], part: str = "") -> tuple[Detr, DetrHead]:
    """Return encoder and head with the tensors of the authors' file."""
    encoder, head = Detr(config).eval(), DetrHead(config, CLASSES).eval()
    found = load(
        detr.table(hub=False),
        state,
        {
            name: tuple(one.shape)
            for name, one in encoder.state_dict().items()
            if not name.startswith(part or "-")
        },
        head={name: tuple(one.shape) for name, one in head.state_dict().items()},
    )
    encoder.load_state_dict(found.encoder, strict=not part)
    head.load_state_dict(found.head)
    return encoder, head


def alike(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 2e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dilated", [False, True])
def test_padded_images_are_answered_as_by_the_authors(dilated):
    state, io = golden("detr")
    encoder, head = taken(replace(SMALL, dilated=dilated), state)
    valid = ~io["pixel_mask_padded_is_true"]
    start = "dc5/" if dilated else ""
    with torch.no_grad():
        features = encoder(io["pixel_values"], given={"valid": valid})
        output = head(features, {"valid": valid})
    alike(output["logits"], log_odds(io[f"{start}pred_logits"])[..., :-1], 2e-3)
    alike(output["boxes"], io[f"{start}pred_boxes"])
    if not dilated:
        alike(features.levels[-1], io["memory"])


def test_every_layer_answers_as_the_authors_auxiliary_outputs():
    state, io = golden("detr")
    encoder, head = taken(replace(SMALL, dropout=0.0), state)
    valid = ~io["pixel_mask_padded_is_true"]
    with torch.no_grad():
        output = head.train()(encoder(io["pixel_values"], given={"valid": valid}), {"valid": valid})
    for layer in range(2):
        alike(output["train.boxes"][:, layer], io[f"aux{layer}_boxes"])
        alike(output["train.logits"][:, layer], log_odds(io[f"aux{layer}_logits"])[..., :-1], 2e-3)


def test_norms_in_front_and_learned_positions():
    state, io = golden("detr_prenorm_learnedpos")
    config = replace(SMALL, pre_norm=True, position="learned")
    encoder, head = taken(config, state, part="backbone")
    valid = ~io["pixel_mask_padded_is_true"]
    with torch.no_grad():
        features = encoder.read([io["backbone"]], valid)
        output = head(features, {"valid": valid})
    alike(features.levels[-1], io["memory"], 1e-4)
    alike(output["boxes"], io["pred_boxes"], 1e-4)
    alike(output["logits"], log_odds(io["pred_logits"])[..., :-1], 1e-3)


def test_masks():
    state, io = golden("detr_maskhead")
    looks, masks = AttentionShares(64, 8), FineMasks(72, (1024, 512, 256), 256)
    names = {f"looks.{name}" for name in looks.state_dict()} | {
        f"masks.{name}" for name in masks.state_dict()
    }
    shapes = {
        **{f"looks.{name}": tuple(one.shape) for name, one in looks.state_dict().items()},
        **{f"masks.{name}": tuple(one.shape) for name, one in masks.state_dict().items()},
    }
    found = load(detr.table(hub=False), state, {}, head=shapes).head
    assert found.keys() == names
    for part, start in ((looks, "looks."), (masks, "masks.")):
        part.load_state_dict({n.removeprefix(start): t for n, t in found.items() if n.startswith(start)})
    cells = Tokens(io["memory"].flatten(2).mT, tuple(io["memory"].shape[2:]))
    bias = torch.zeros(2, 1, 1, 12).masked_fill(io["mask"].flatten(1)[:, None, None], -torch.inf)
    with torch.no_grad():
        shares = looks(io["hs"], cells, bias)
        alike(shares, io["bbox_mask"], 1e-5)
        drawn = masks(io["src"], shares, (io["fpn0"], io["fpn1"], io["fpn2"]))
    alike(drawn.flatten(0, 1)[:, None], io["seg_masks"], 1e-4)


def test_positions_without_padding_are_those_of_a_mask_without_padding():
    config = SMALL
    encoder = Detr(config)
    cells = Tokens(torch.zeros(2, 12, 64), (3, 4))
    plain, masked = (
        places(encoder.position, cells, valid) for valid in (None, torch.ones(2, 96, 128, dtype=torch.bool))
    )
    torch.testing.assert_close(plain.position.expand(2, -1, -1), masked.position)


def stated(**more: Any) -> TheirConfig:
    """A small DETR with transformers' own ResNet."""
    backbone = ResNetConfig(
        embedding_size=64, hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 1, 1], layer_type="bottleneck",
        out_features=["stage1", "stage2", "stage3", "stage4"] if more.pop("masks", False) else ["stage4"],
    )  # fmt: skip
    labels = dict(enumerate(("N/A", "person", "car")))
    return TheirConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone, d_model=128, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=96, decoder_ffn_dim=96,
        num_queries=9, id2label=labels, **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [DetrForObjectDetection, DetrForSegmentation])
def test_files_of_transformers_answer_alike_and_come_back(shaken, tmp_path, kind):
    masks = kind is DetrForSegmentation
    theirs = shaken(kind(stated(masks=masks))).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    found = from_path(tmp_path / "theirs")
    assert found.task == ("instances" if masks else "detect")
    network = with_own_head(found).network
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        wanted = theirs(pixel_values=images, pixel_mask=torch.ones(2, 96, 128, dtype=torch.long))
        output = network({"images": images})
    alike(output["boxes"], wanted.pred_boxes, 1e-5)
    alike(output["logits"], log_odds(wanted.logits)[..., :-1], 1e-3)
    if masks:
        scale = wanted.pred_masks.abs().max()
        alike(output["masks"] / scale, wanted.pred_masks / scale, 1e-4)
    convert(tmp_path / "theirs", tmp_path / "back.safetensors", to="huggingface")
    again, first = (
        load_file(path) for path in (tmp_path / "back.safetensors", tmp_path / "theirs" / "model.safetensors")
    )
    shared = [name for name in first if ".conv_encoder." not in name and name in again]
    assert len(shared) > 60
    assert all(torch.equal(first[name], again[name]) for name in shared)
    reread = from_path(tmp_path / "back.safetensors", network={"image": [96, 128]})
    assert all(torch.equal(reread.encoder[name], tensor) for name, tensor in found.encoder.items())


@pytest.mark.parametrize("name", ["model.query_position_embeddings.weight", "class_labels_classifier.weight"])
def test_a_tensor_that_is_missing_is_named(tmp_path, name):
    folder = tmp_path / "theirs"
    DetrForObjectDetection(stated()).save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    save_file({key: tensor for key, tensor in state.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"lacks {name}"):
        from_path(folder)


def test_a_config_of_another_network_is_refused(tmp_path):
    DetrForObjectDetection(stated()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "eomt"}))
    with pytest.raises(WeightsError, match="says model_type 'eomt', and the tensors are those of 'detr'"):
        from_path(tmp_path)


def test_a_file_of_the_authors_opens_by_itself(tmp_path):
    state, io = golden("detr")
    save_file(state, tmp_path / "detr.safetensors")
    found = from_path(tmp_path / "detr.safetensors", network={"heads": 4, "image": [96, 128]})
    assert (found.task, found.config.queries, found.config.decoder) == ("detect", 12, 3)
    network = with_own_head(found).network
    with torch.no_grad():
        output = network({"images": io["image0"][None]})
    assert output["logits"].shape == (1, 12, CLASSES)


def test_a_training_moves_the_decoder_and_no_statistics():
    torch.manual_seed(0)
    task = Detect(Truth("boxes", ("a", "b")), {})
    network = build_network(Detr(SMALL), task).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], 1e-3)
    boxes = (torch.tensor([[0.5, 0.5, 0.2, 0.3]]), torch.tensor([1]), torch.zeros(0, 4))
    for _ in range(2):
        losses = task.loss(network({"images": torch.randn(2, 3, 96, 128)}), [boxes, boxes])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    after = network.state_dict()
    assert not torch.equal(after["head.decoder.queries"], before["head.decoder.queries"])
    assert not torch.equal(
        after["encoder.backbone.layer4.0.conv1.weight"], before["encoder.backbone.layer4.0.conv1.weight"]
    )
    frozen = [name for name in before if ".bn" in name or "downsample.1" in name or "backbone.layer1" in name]
    assert frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    (found,) = task.decode(
        {
            name: one[:1].detach()
            for name, one in network.eval()({"images": torch.randn(1, 3, 96, 128)}).items()
        },
        [
            __import__("vitrail.data.preprocess", fromlist=["Preprocess"])
            .Preprocess((96, 128))
            .geometry(90, 140)
        ],
        Ask(threshold=0.0),
    )
    assert len(found) == 12


def test_its_masks_learn_with_the_pairs_of_the_last_layer():
    torch.manual_seed(0)
    task = SegmentInstances(Truth("instances", ("a", "b")), {})
    network = build_network(Detr(replace(SMALL, heads=8)), task).train()
    cover = torch.zeros(1, 24, 32, dtype=torch.uint8)
    cover[:, 8:16, 12:20] = 255
    truth = (torch.tensor([[0.5, 0.5, 0.25, 0.33]]), torch.tensor([1]), torch.zeros(0, 4), cover)
    output = network({"images": torch.randn(1, 3, 96, 128)})
    assert output["train.boxes"].shape[1] == 3
    task.loss(output, [truth]).total.backward()
    assert network.head.masks.last.weight.grad.any()


def test_the_configs_of_the_goldens_are_those_of_this_test():
    if not GOLDENS.is_dir():
        pytest.skip("the goldens are not here (../shared/goldens)")
    config = json.loads((GOLDENS / "detr.json").read_text())["config"]
    assert (config["hidden_dim"], config["nheads"], config["num_queries"]) == (
        SMALL.width,
        SMALL.heads,
        SMALL.queries,
    )


@pytest.mark.parametrize("kind", [DetrForObjectDetection, DetrForSegmentation])
def test_names_in_memory_are_read_too(shaken, tmp_path, kind):
    theirs = shaken(kind(stated(masks=kind is DetrForSegmentation)))
    theirs.save_pretrained(tmp_path / "files")
    theirs.save_pretrained(tmp_path / "memory", save_original_format=False)
    assert not any("out_proj" in name for name in load_file(tmp_path / "memory" / "model.safetensors"))
    wanted, found = from_path(tmp_path / "files"), from_path(tmp_path / "memory")
    assert (found.config, found.task) == (wanted.config, wanted.task)
    for one, other in ((found.encoder, wanted.encoder), (found.head, wanted.head)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_stride_of_the_authors_files_is_said_by_their_names(tmp_path):
    """No tensor tells the dilated network from the other, so that nobody's word is a line."""
    state = rules.save(detr.table(hub=False), Detr(SMALL).state_dict(), DetrHead(SMALL, CLASSES).state_dict())
    for name in ("detr-r50-e632da11.pth", "detr-r50-dc5-f0fb7ef5.pth"):
        torch.save({"model": state}, tmp_path / name)
    plain, dilated = (
        from_path(path)
        for path in (tmp_path / "detr-r50-e632da11.pth", tmp_path / "detr-r50-dc5-f0fb7ef5.pth")
    )
    assert (plain.config.dilated, dilated.config.dilated) == (False, True)
    assert any("at stride 32" in line for line in plain.assumed)
    assert not any("stride" in line for line in dilated.assumed)
    stated_by_hand = from_path(tmp_path / "detr-r50-e632da11.pth", network={"dilated": True})
    assert stated_by_hand.config.dilated
    assert not any("stride" in line for line in stated_by_hand.assumed)
    convert(tmp_path / "detr-r50-dc5-f0fb7ef5.pth", tmp_path / "back.safetensors", to="official")
    assert from_path(tmp_path / "back.safetensors").config.dilated
    with pytest.raises(SettingError, match="dilated=yes cannot be read"):
        from_path(tmp_path / "detr-r50-e632da11.pth", network={"dilated": "yes"})


@pytest.mark.parametrize("name", ["detr_r50", "detr_r50_dc5"])
def test_a_preset_that_is_named_says_the_stride(tmp_path, name):
    thin = replace(PRESETS[name], queries=3, decoder=1)
    state = rules.save(detr.table(hub=False), Detr(thin).state_dict(), DetrHead(thin, CLASSES).state_dict())
    torch.save({"model": state}, tmp_path / "mine.pth")
    assert from_path(tmp_path / "mine.pth", name).config.dilated == name.endswith("dc5")
