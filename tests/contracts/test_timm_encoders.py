"""Networks of timm, of all kinds, as encoders: their specs are correct and no parameter is missing."""

from __future__ import annotations

import json

import pytest
import torch

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.infer.bf16_check import check_bf16, keep_in_float32
from vitrail.layers.pooling import Pool
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import create_encoder, describe, rebuild
from vitrail.models.timm_wrapper import TimmConfig, TimmEncoder

# (image size, attention, sizes): small sizes where a network takes them
NETWORKS = {
    "resnet10t": (64, "none", "any"),
    # the story's own, under its names
    "vgg11_bn": (64, "none", "any"),
    "bit_r50x1": (64, "none", "any"),
    "inception_v3": (96, "none", "any"),
    "xception": (64, "none", "any"),
    "efficientnetv2_s": (64, "none", "any"),
    "resnetv2_18": (64, "none", "any"),
    "regnetx_002": (64, "none", "any"),
    "densenet121": (64, "none", "any"),
    "efficientnet_b0": (64, "none", "any"),
    "mobilenetv3_small_050": (64, "none", "any"),
    "mobilenetv4_conv_small_035": (64, "none", "any"),
    "ghostnet_050": (64, "none", "any"),
    "hgnetv2_b0": (64, "none", "any"),
    "repvgg_a0": (64, "none", "any"),
    "dla46_c": (64, "none", "any"),
    "convnext_atto": (64, "none", "any"),
    "starnet_s1": (64, "none", "any"),
    "poolformer_s12": (64, "none", "any"),
    "resmlp_12_224": (96, "none", "fixed"),
    "gmlp_ti16_224": (64, "none", "fixed"),
    "pvt_v2_b0": (64, "opaque", "any"),
    "swinv2_cr_tiny_ns_224": (56, "opaque", "fixed"),
    "cait_xxs24_224": (64, "opaque", "fixed"),
    "edgenext_xx_small": (64, "opaque", "any"),
    "levit_128s": (None, "opaque", "fixed"),
    "eva02_tiny_patch14_224": (56, "softmax", "fixed"),
    "mobilevit_xxs": (64, "opaque", "any"),
    "efficientformerv2_s0": (64, "opaque", "fixed"),
    "visformer_tiny": (64, "opaque", "fixed"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request) -> tuple[TimmEncoder, torch.Tensor]:
    image, _, _ = NETWORKS[request.param]
    torch.manual_seed(5)
    encoder = create_encoder(request.param, image=image).eval()
    assert isinstance(encoder, TimmEncoder)
    return encoder, torch.randn(2, 3, image or 224, image or 224)


def test_the_spec_tells_the_truth(case, request):
    encoder, images = case
    spec = encoder.spec
    _, attention, sizes = NETWORKS[request.node.callspec.params["case"]]
    assert (spec.attention, spec.sizes, spec.pool) == (attention, sizes, "own")
    with torch.no_grad():
        features = encoder(images)
    tokens, levels, pooled = features
    assert tokens.x.shape == (2, tokens.prefix + tokens.grid[0] * tokens.grid[1], spec.width)
    assert (tokens.prefix, pooled.shape) == (len(spec.prefix), (2, spec.pooled_width))
    assert tokens.map().shape == (2, spec.width, *tokens.grid)
    assert all(torch.equal(level, tokens.map()) for level in levels)
    assert tokens.grid == (-(-images.shape[2] // spec.strides[-1]),) * 2


def test_every_parameter_learns(case):
    encoder, images = case
    encoder.train()
    encoder.zero_grad()
    Pool(encoder.spec)(encoder(images)).square().sum().backward()
    encoder.eval()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_another_size(case):
    encoder, images = case
    stride = encoder.spec.strides[-1]
    other = images.new_ones(1, 3, images.shape[2] + 2 * stride, images.shape[3] + 4 * stride)
    if encoder.spec.sizes == "any":
        with torch.no_grad():
            grid = encoder(other).tokens.grid
        if (
            encoder.config.name == "inception_v3"
        ):  # without padding every layer loses its rim: more pixels lose less
            assert grid[1] > grid[0] >= other.shape[2] // stride
        else:
            assert grid == tuple(side // stride for side in other.shape[2:])


def test_export(case):
    encoder, images = case
    with torch.no_grad():
        expected = encoder(
            images
        ).pooled  # first: some networks keep tables of positions from their first forward
        program = torch.export.export(encoder, (images,))
        torch.testing.assert_close(program.module()(images).pooled, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16(case, tmp_path, monkeypatch):
    """As in use: without layers that are wrong on this machine, such as visformer's first embedding with AMX."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    encoder, images = case
    check = check_bf16(encoder, images)
    assert check.faithful
    assert len(check.float32) <= 1
    keep_in_float32(encoder, check.float32)
    with torch.no_grad():
        exact = encoder(images).pooled
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(images).pooled
    keep_in_float32(encoder, ())
    assert torch.isfinite(rough).all()
    assert torch.nn.functional.cosine_similarity(rough.float().flatten(), exact.flatten(), 0) > 0.98


def test_recording_is_exact_or_refused_in_words(case):
    encoder, images = case
    recorder = Recorder()
    if encoder.spec.attention != "softmax":
        with pytest.raises(SettingError, match="cannot be recorded"):
            encoder(images, record=recorder)
        return
    with torch.no_grad():
        torch.testing.assert_close(encoder(images, record=recorder).pooled, encoder(images).pooled)
    assert len(recorder.maps) == encoder.spec.blocks == 12
    n = len(encoder.spec.prefix) + 16
    for one in recorder.maps:
        assert (one.grid, one.size) == ((4, 4), (n, n))
        torch.testing.assert_close(one.dense().sum(-1), torch.ones(2, 3, n))


def test_recorded_attention_is_what_the_unfused_network_computes():
    """Compare timm's own slow path, observed at its attention dropout, with the records of the fused path."""
    encoder = create_encoder("vit_relpos_small_patch16_224", image=64).eval()
    images, recorder, theirs = torch.randn(2, 3, 64, 64), Recorder(), []
    with torch.no_grad():
        encoder(images, record=recorder)
        for block in encoder.net.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda _, given, __: theirs.append(given[0]))
        encoder(images)
    for ours, weights in zip(recorder.maps, theirs, strict=True):
        torch.testing.assert_close(ours.weights, weights, rtol=0, atol=1e-6)


def test_a_call_that_is_not_heard_is_refused():
    encoder = create_encoder("eva02_tiny_patch14_224", image=56).eval()
    encoder.net.blocks[3].attn.fused_attn = False
    with pytest.raises(SettingError, match=r"12 attention calls, of which 11"), torch.no_grad():
        encoder(torch.randn(1, 3, 56, 56), record=Recorder())


def test_a_description_rebuilds_the_network():
    encoder = create_encoder("mobilenetv3_small_050", image=64, channels=4, drop_path=0.1)
    again = rebuild(json.loads(json.dumps(describe(encoder))))
    assert again.config == encoder.config == TimmConfig("mobilenetv3_small_050", 64, 4, 0.1)
    again.load_state_dict(encoder.state_dict())


def test_what_a_network_does_not_take_is_refused():
    with pytest.raises(SettingError, match="no drop path"):
        create_encoder("densenet121", drop_path=0.1)
    with pytest.raises(SettingError, match="no single map"):
        create_encoder("crossvit_tiny_240")


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="'vit_s16'"):
        create_encoder("vit_s61")
    with pytest.raises(UnknownNameError, match="'resnet50'"):
        create_encoder("resnet_50")


def test_levels(case):
    """Stages of a pyramid, or any blocks of a column: the last map is the one that the tokens are of."""
    encoder, images = case
    spec = encoder.spec
    blocks = (1, spec.depth) if spec.depth else ()
    if not spec.depth and len(spec.widths) < 2:
        with pytest.raises(SettingError, match="whose blocks can be read"):
            encoder.tap(images)
        return
    with torch.no_grad():
        features, plain = encoder.tap(images, blocks), encoder(images)
    torch.testing.assert_close(features.tokens.x, plain.tokens.x, rtol=0, atol=1e-6)
    assert features.tokens.grid == plain.tokens.grid
    assert torch.equal(features.levels[-1], features.tokens.map())
    if spec.depth:
        assert [tuple(level.shape[1:]) for level in features.levels] == [(spec.width, *plain.tokens.grid)] * 2
        with pytest.raises(SettingError):
            encoder.tap(images, (spec.depth + 1,))
    else:
        assert tuple(level.shape[1] for level in features.levels) == spec.widths
        rows = [round(images.shape[2] / level.shape[2]) for level in features.levels]
        assert rows == list(spec.strides)
        with pytest.raises(SettingError, match="no single blocks"):
            encoder.tap(images, (1,))
