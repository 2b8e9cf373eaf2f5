"""RF-DETR and RF-DETR-Seg against transformers' networks, through its files; windows of oblong inputs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RfDetrConfig as TheirConfig
from transformers import RfDetrForInstanceSegmentation, RfDetrForObjectDetection

from vitrail.core.errors import SettingError, WeightsError
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.models.factory import build
from vitrail.models.rf_detr import PRESETS, RfDetrConfig, WindowedAttention, window_order
from vitrail.runs.network import Network
from vitrail.runs.published_head import with_own_head
from vitrail.tasks.detect.task import Detect
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.rules import save
from vitrail.weights.tables import rf_detr

LABELS = ("N/A", "person", "car", "dog", "tree")


def stated(windows: int = 2, side: int = 24, **more: Any) -> TheirConfig:
    """A small RF-DETR; its projector has the epsilon of the published network, which is not the default."""
    backbone = {
        "model_type": "rf_detr_dinov2", "hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 3,
        "patch_size": 4, "image_size": side, "num_windows": windows,
        "out_features": ["stage1", "stage3", "stage4"],
    }  # fmt: skip
    return TheirConfig(
        backbone_config=backbone, d_model=64, decoder_layers=2, decoder_ffn_dim=40, decoder_n_points=2, num_queries=7,
        group_detr=3, decoder_self_attention_heads=2, decoder_cross_attention_heads=4, intermediate_size=256,
        layer_norm_eps=1e-6, id2label=dict(enumerate(LABELS)), **more,
    )  # fmt: skip


@pytest.fixture
def folder(shaken, tmp_path):
    """Return a function that writes a shaken network of transformers to a folder, and returns both."""

    def write(kind: type, config: TheirConfig, **more: Any) -> tuple[Any, Path]:
        theirs = shaken(kind(config))
        theirs.save_pretrained(tmp_path / "theirs", **more)
        return theirs, tmp_path / "theirs"

    return write


BOXES, SEG = RfDetrForObjectDetection, RfDetrForInstanceSegmentation


def images(height: int = 24, width: int = 24, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def network_of(found: Pretrained) -> Network:
    """Return the network with its published head, with all of its outputs, also those that stand for no class."""
    network = with_own_head(found).network
    network.head.load_state_dict(dict(found.head))
    return network


@pytest.mark.parametrize("kind", [BOXES, SEG])
@pytest.mark.parametrize("windows", [1, 2, 3])
@torch.no_grad()
def test_transformers(folder, kind, windows):
    theirs, place = folder(kind, stated(windows))
    found = from_path(place)
    assert found.task == ("instances" if kind is SEG else "detect")
    assert found.config == RfDetrConfig(
        24, 4, width=24, depth=5, heads=3, windows=windows, taps=(1, 3, 4), norm_eps=1e-6
    )
    wanted = {"width": 64, "layers": 2, "hidden": 40, "points": 2, "queries": 7, "groups": 3}
    whole = {"reach": None} if kind is SEG else {}  # masks of published networks are not cut
    assert found.settings == {**wanted, "anchor": 0.05, "margin": 0.01, **whole}
    assert found.labels == LABELS
    assert not found.assumed
    network = network_of(found)
    output, expected = network({"images": images()}), theirs(images())
    torch.testing.assert_close(output["logits"], expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(output["boxes"], expected.pred_boxes, rtol=0, atol=1e-5)
    if kind is SEG:
        largest = float(
            expected.pred_masks.abs().max()
        )  # products of vectors: their rounding grows with them
        torch.testing.assert_close(output["masks"], expected.pred_masks, rtol=0, atol=3e-6 * largest)


@pytest.mark.parametrize("kind", [BOXES, SEG])
def test_every_tensor_comes_back_bit_by_bit(folder, tmp_path, kind):
    _, place = folder(kind, stated())
    found, source = from_path(place), load_file(place / "model.safetensors")
    back = save(rf_detr.table(), found.encoder, found.head)
    assert source.keys() - back.keys() == {"backbone.0.encoder.encoder.embeddings.mask_token"}
    assert all(torch.equal(back[key], source[key]) for key in back)
    if kind is BOXES:
        convert(place, tmp_path / "back.safetensors", to="official")
        again = load_file(tmp_path / "back.safetensors")
        assert again.keys() == back.keys()
        assert all(torch.equal(again[key], back[key]) for key in back)
        assert from_path(tmp_path / "back.safetensors").config == found.config


@pytest.mark.parametrize("kind", [BOXES, SEG])
def test_names_in_memory_are_read_too(folder, kind):
    _, place = folder(kind, stated())
    wanted = from_path(place)
    theirs = kind.from_pretrained(place)
    theirs.save_pretrained(place, save_original_format=False)
    assert "backbone.0.projector.stages.0.1.weight" not in load_file(place / "model.safetensors")
    found = from_path(place)
    assert (found.config, found.settings) == (wanted.config, wanted.settings)
    for one, other in ((found.encoder, wanted.encoder), (found.head, wanted.head)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_the_package(folder, tmp_path):
    _, place = folder(BOXES, stated())
    tensors = load_file(place / "model.safetensors")
    tensors["_kp_active_mask"] = torch.zeros(0, 0, dtype=torch.bool)  # of newer versions
    said = argparse.Namespace(
        num_windows=2,
        out_feature_indexes=[1, 3, 4],
        resolution=32,
        sa_nheads=2,
        class_names=["person", "car"],
    )
    torch.save({"model": tensors, "args": said, "epoch": 3}, tmp_path / "best.pth")
    found, wanted = from_path(tmp_path / "best.pth", network={"heads": 3}), from_path(place)
    assert (found.config.windows, found.config.taps) == (2, (1, 3, 4))
    assert (found.config.image, found.config.table) == (32, 6)  # the positions are resized to the resolution
    assert found.settings == wanted.settings
    assert found.preprocessing is not None
    assert (found.preprocessing.fit, found.preprocessing.interpolation) == ("squash", "bilinear")
    assert found.labels == ()
    assert any("2 classes for 5 outputs" in line for line in found.assumed)
    assert all(torch.equal(found.head[key], wanted.head[key]) for key in wanted.head)


@pytest.mark.parametrize(
    ("name", "preset"),
    [("rf-detr-nano", "rf_detr_n"), ("rf-detr-base", "rf_detr_b"), ("rf-detr-seg-nano", "rf_detr_seg_n"),
     ("rf-detr-seg-medium", "rf_detr_seg_m")],
)  # fmt: skip
def test_a_file_alone_has_the_windows_of_its_preset(tmp_path, name, preset):
    config = PRESETS[preset]
    thin = build(RfDetrConfig(config.image, config.patch, width=64, depth=12, heads=1, windows=config.windows,
                              taps=config.taps, table=config.table))  # fmt: skip
    head = Detect(["a", "b"], {"width": 64, "queries": 3, "groups": 1}).head(thin.spec)
    tensors = save(rf_detr.table(), thin.state_dict(), head.state_dict())
    torch.save({"model": tensors}, tmp_path / f"{name}.pth")
    found = from_path(tmp_path / f"{name}.pth")
    assert found.config == thin.config
    assert any("no one says" in line for line in found.assumed)


def test_what_is_missing_or_left_over_is_named(folder):
    _, place = folder(BOXES, stated())
    tensors = load_file(place / "model.safetensors")
    for gone, more, words in (
        ("transformer.enc_output.1.bias", None, "enc_output.1.bias missing"),
        (None, "backbone.0.projector.stages.0.0.m.3.cv1.conv.weight", "m.3.cv1.conv.weight has no place"),
    ):
        changed = {key: tensor for key, tensor in tensors.items() if key != gone}
        changed |= {more: torch.zeros(1)} if more else {}
        torch.save(changed, place / "changed.pth")
        with pytest.raises(WeightsError, match=words):
            from_path(place / "changed.pth", network={"heads": 3})


def test_a_branch_of_masks_with_holes_is_one_of_masks(folder):
    _, place = folder(SEG, stated())
    path = place / "model.safetensors"
    gone = ("segmentation_head.bias", "segmentation_head.blocks.0.dwconv.bias")
    save_file({key: tensor for key, tensor in load_file(path).items() if key not in gone}, path)
    with pytest.raises(WeightsError, match=rf"network: {gone[0]} missing; {gone[1]} missing\. "):
        from_path(place)


def test_without_its_config_the_reason_is_said(folder):
    _, place = folder(BOXES, stated())
    (place / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"There is no config\.json beside them"):
        from_path(place, network={"heads": 3})


def test_a_part_that_is_missing_is_never_made_up(folder):
    _, place = folder(BOXES, stated())
    found = from_path(place)
    head = {name: tensor for name, tensor in found.head.items() if name != "decoder.layers.1.key.bias"}
    with pytest.raises(
        WeightsError, match=r"2 of the 3 parts of transformer.decoder.layers.1.self_attn.in_proj_bias"
    ):
        save(rf_detr.table(), found.encoder, head)


def test_another_kind_of_head_is_refused(folder):
    _, place = folder(BOXES, stated(decoder_activation_function="gelu"))
    with pytest.raises(WeightsError, match="decoder_activation_function = 'gelu'"):
        from_path(place)


@torch.no_grad()
def test_cells_at_the_border_propose_nothing(folder):
    """Of 52 cells on a side the first has its centre below 0.01, as in RF-DETR-Seg-XL."""
    theirs, place = folder(BOXES, stated(side=208))
    network = network_of(from_path(place))
    output, expected = network({"images": images(208, 208, 1)}), theirs(images(208, 208, 1))
    torch.testing.assert_close(output["boxes"], expected.pred_boxes, rtol=0, atol=1e-5)
    assert network.head.decoder.shape.margin == 0.01


@torch.no_grad()
def test_the_epsilon_of_the_projector_is_that_of_the_published_network(folder):
    """transformers' default, 1e-5, is not what the package trained with; answers differ by no more than this."""
    config = stated()
    theirs, place = folder(BOXES, config)
    for module in theirs.modules():
        if type(module).__name__ == "RfDetrLayerNorm":
            module.eps = 1e-5
    output = network_of(from_path(place))({"images": images()})
    torch.testing.assert_close(output["logits"], theirs(images()).logits, rtol=0, atol=3e-4)


# Windows


OBLONG = RfDetrConfig((24, 48), 4, width=24, depth=4, heads=3, windows=2, taps=(2, 4))


def by_hand(attention: WindowedAttention, tokens: Tokens) -> torch.Tensor:
    """Attention of all tokens in which pairs from different windows are forbidden: the plain definition."""
    row, col = tokens.grid
    windows = attention.windows
    down, right = torch.arange(row) // (row // windows), torch.arange(col) // (col // windows)
    own = torch.cat([torch.arange(windows**2), (down[:, None] * windows + right).flatten()])
    q, k, v = (
        part.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for part in attention.qkv(tokens.x).chunk(3, -1)
    )
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    mixed = scores.masked_fill(own[:, None] != own[None], -torch.inf).softmax(-1) @ v
    return attention.out(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("grid", "windows"), [((6, 6), 2), ((6, 12), 2), ((9, 3), 3), ((4, 10), 2)])
@torch.no_grad()
def test_windows_are_parts_of_the_image_with_a_class_token_each(grid, windows):
    torch.manual_seed(0)
    attention = WindowedAttention(24, 3, windows)
    prefix = windows**2
    tokens = Tokens(torch.randn(2, prefix + grid[0] * grid[1], 24), grid, prefix)
    found = attention(tokens)
    torch.testing.assert_close(found, by_hand(attention, tokens), rtol=0, atol=2e-6)
    torch.testing.assert_close(attention(tokens, None, prefix), found[:, :prefix], rtol=0, atol=0)


@torch.no_grad()
def test_a_window_of_an_oblong_image_is_an_image_of_its_own():
    """With no block that attends everywhere, each part is computed as if the others did not exist."""
    torch.manual_seed(0)
    encoder = build(RfDetrConfig((24, 48), 4, width=24, depth=3, heads=3, windows=2, taps=(3,))).eval()
    pictures = images(24, 48)
    whole = encoder(pictures).tokens
    for place, (top, left) in enumerate(((0, 0), (0, 24), (12, 0), (12, 24))):
        changed = torch.randn_like(pictures)
        changed[..., top : top + 12, left : left + 24] = pictures[..., top : top + 12, left : left + 24]
        other = encoder(changed).tokens
        rows, cols = slice(top // 4, top // 4 + 3), slice(left // 4, left // 4 + 6)
        torch.testing.assert_close(
            other.map()[..., rows, cols], whole.map()[..., rows, cols], rtol=0, atol=2e-6
        )
        torch.testing.assert_close(other.x[:, place], whole.x[:, place], rtol=0, atol=2e-6)


@torch.no_grad()
def test_recorded_attention_is_what_multiplied_the_values():
    torch.manual_seed(0)
    encoder = build(OBLONG).eval()
    record = Recorder()
    recorded = encoder(images(24, 48), record=record)
    torch.testing.assert_close(recorded.tokens.x, encoder(images(24, 48)).tokens.x, rtol=0, atol=2e-6)
    everywhere = [one.groups == 1 for one in record.maps]
    assert everywhere == [False, False, True, False]  # the block behind two blocks, counted from 0
    tokens = encoder.start(images(24, 48))
    block = encoder.blocks[0]
    normed = tokens.with_x(block.norm1(tokens.x))
    values = block.attention.qkv(normed.x).chunk(3, -1)[2].unflatten(-1, (3, -1)).transpose(1, 2)
    mixed = (record.maps[0].dense() @ values).transpose(1, 2).flatten(2)
    expected = block.attention(normed)
    torch.testing.assert_close(block.attention.out(mixed), expected, rtol=0, atol=2e-6)


def test_the_order_of_windows_goes_there_and_back():
    order = window_order((4, 6), 2, torch.device("cpu"))
    assert order.tokens[1].tolist() == [
        1,
        7,
        8,
        9,
        13,
        14,
        15,
    ]  # its class token, then two rows of three patches
    assert torch.equal(order.tokens.flatten()[order.back], torch.arange(4 + 24))


def test_the_nearest_size_is_named():
    with pytest.raises(SettingError, match=r"multiple of 8.*24 x 48"):
        RfDetrConfig((25, 48), 4, windows=2)
    with pytest.raises(SettingError, match=r"multiple of 8.*24 x 48"):
        build(OBLONG)(images(24, 44))
