"""The properties of all our encoders; a new architecture is tested by one row of `TINY`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import prod

import pytest
import torch

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.layers.encoder import ColumnEncoder, Encoder
from vitrail.layers.gradient_checkpointing import set_checkpointing
from vitrail.layers.pooling import Pool
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.models.clip import ClipConfig
from vitrail.models.deit import DeiTConfig
from vitrail.models.detr import DetrConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.dit import DiTConfig
from vitrail.models.eomt import EoMTConfig
from vitrail.models.factory import build, describe, presets_of, rebuild
from vitrail.models.frames import FrameConfig
from vitrail.models.mae import MAEConfig
from vitrail.models.mixer import MixerConfig
from vitrail.models.rf_detr import RfDetrConfig
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.t2t import T2TConfig
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import VVTConfig
from vitrail.models.wetmapformer import WetMapFormerConfig


def _inner(config) -> dict[str, object]:
    return {"family": config.family, "config": asdict(config)}


# Settings and another size that fits. Axes are distinct primes where legal: a swapped one cannot hide.
TINY = {
    "vit": (
        ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3, hidden=41, drop_path=0.1),
        (14, 49),
    ),
    "vit-without-class-token": (
        ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3, prefix=(), gelu="tanh"),
        (14, 49),
    ),
    "vit-positions-of-patches": (
        ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3, position="1d_patches"),
        (14, 49),
    ),
    "vit-sines": (
        ViTConfig(image=(21, 35), patch=7, channels=5, width=44, depth=2, heads=4, position="sine"),
        (14, 49),
    ),
    "vit-hybrid": (
        ViTConfig(image=(32, 48), patch=1, channels=5, width=33, depth=2, heads=3, stem=(32, 1, 2, 1)),
        (64, 32),
    ),
    "vit-overlapping": (
        ViTConfig(image=(22, 37), patch=(7, 5), channels=5, width=33, depth=2, heads=3),
        (17, 42),
    ),
    "dinov2-overlapping": (
        DinoV2Config(image=(22, 37), patch=(7, 5), channels=5, width=33, depth=2, heads=3, registers=2),
        (17, 42),
    ),
    "dinov2": (
        DinoV2Config(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3, hidden=41),
        (14, 49),
    ),
    "dinov2-registers": (
        DinoV2Config((21, 35), 7, 5, width=33, depth=2, heads=3, hidden=41, mlp="swiglu", registers=2),
        (14, 49),
    ),
    "deit-distilled": (
        DeiTConfig((21, 35), patch=7, channels=5, width=33, depth=2, heads=3, prefix=("cls", "dist")),
        (14, 49),
    ),
    "deit3": (
        DeiTConfig((21, 35), 7, 5, 33, depth=2, heads=3, position="1d_patches", layer_scale=0.1),
        (14, 49),
    ),
    "mae": (
        MAEConfig(image=(21, 35), patch=7, channels=5, width=44, depth=2, heads=4, hidden=41, drop_path=0.1),
        (14, 49),
    ),
    "mae-pooled": (
        MAEConfig(image=(21, 35), patch=7, channels=5, width=44, depth=2, heads=4, pooled=True),
        (14, 49),
    ),
    "dit": (
        DiTConfig((21, 35), 7, 5, width=44, depth=2, heads=4, hidden=41, classes=3),
        (14, 49),
    ),
    "clip": (
        ClipConfig((21, 35), 7, 5, width=33, depth=2, heads=3, hidden=41, drop_path=0.1),
        (14, 49),
    ),
    "swin": (
        SwinConfig(
            (48, 72), 2, 5, width=14, depths=(2, 3, 2), heads=(1, 2, 7), window=3, position="absolute"
        ),
        (24, 48),
    ),
    "swin-one-window": (
        SwinConfig((20, 40), 2, 5, width=14, depths=(2, 2), heads=(1, 2), window=5),
        (40, 60),
    ),
    "t2t-performer": (
        T2TConfig((48, 80), 5, token_width=22, width=33, depth=2, heads=3),
        (32, 112),
    ),
    "t2t-transformer": (
        T2TConfig((48, 80), 5, "transformer", token_width=23, width=33, depth=2, heads=3),
        (32, 112),
    ),
    "supervit": (
        SuperViTConfig((21, 35), 7, 5, width=33, depth=2, heads=3, sides=(1,), stations=(0, 1)),
        (14, 49),
    ),
    "supervit-lvvit": (
        SuperViTConfig((24, 40), 8, 5, width=33, depth=2, heads=3, hidden=2.0, form="lvvit", sides=(1,)),
        (16, 56),
    ),
    "vvt": (
        VVTConfig((37, 67), 5, (12, 22, 28, 44), (1, 2, 1, 1), (1, 1, 2, 2), (3, 2, 2, 2)),
        (32, 101),
    ),
    "vvt-product": (
        VVTConfig((64, 96), 5, (12, 22), (1, 1), (1, 1), (3, 2), (1, 2), (2, 1), form="product"),
        (48, 72),
    ),
    "wetmapformer": (
        WetMapFormerConfig((40, 56), 5, widths=(14, 22), depths=(2, 1), head_dim=11, kernel=5, hidden=3),
        (64, 48),
    ),
    "wetmapformer-published": (
        WetMapFormerConfig((16, 24), 5, widths=(13, 22), depths=(1, 1), head_dim=11, as_published=True),
        (8, 16),
    ),
    "rf_detr": (
        RfDetrConfig((42, 70), 7, 5, width=33, depth=3, heads=3, hidden=41, taps=(1, 3), drop_path=0.1),
        (28, 98),
    ),
    "rf_detr-base": (
        RfDetrConfig((42, 63), 7, 5, width=33, depth=3, heads=3, windows=3, taps=(2,), table=4),
        (84, 21),
    ),
    "rf_detr-one-window": (
        RfDetrConfig((21, 35), 7, 5, width=33, depth=2, heads=3, windows=1, taps=(1, 2)),
        (14, 49),
    ),
    "eomt": (
        EoMTConfig(
            (21, 35),
            7,
            5,
            width=33,
            depth=3,
            heads=3,
            hidden=41,
            registers=2,
            queries=5,
            query_blocks=2,
            drop_path=0.1,
        ),
        (14, 49),
    ),
    "eomt-last-block": (
        EoMTConfig((21, 35), 7, 5, width=33, depth=2, heads=3, registers=0, queries=3, query_blocks=1),
        (14, 49),
    ),
    "detr": (
        DetrConfig((70, 99), 5, (1, 2, 1, 1), (4, 6, 10, 14), width=36, heads=3, hidden=47, depth=2),
        (65, 130),
    ),
    "detr-learned": (
        DetrConfig(
            (70, 99), 5, (1, 1, 1, 2), (4, 6, 10, 14), True, 36, 3, 41, 2, position="learned", pre_norm=True
        ),
        (33, 130),
    ),
    "frames": (
        FrameConfig(3, "mean", _inner(ViTConfig((21, 35), 7, 5, width=33, depth=2, heads=3, drop_path=0.1))),
        (14, 49),
    ),
    "frames-registers": (
        FrameConfig(3, "attention", _inner(DinoV2Config((21, 35), 7, 5, 33, depth=2, heads=3, registers=2))),
        (14, 49),
    ),
    "frames-pyramid": (
        FrameConfig(
            2, "attention", _inner(SwinConfig((48, 72), 2, 5, 14, depths=(2, 1), heads=(1, 2), window=3))
        ),
        (24, 48),
    ),
    **{
        f"timesformer-{name}": (
            TimeSformerConfig(
                (21, 35), 7, 5, 3, 33, depth=2, heads=3, hidden=41, attention=name, drop_path=0.1
            ),
            (14, 49),
        )
        for name in ("divided", "joint", "space")
    },
    "mixer": (MixerConfig((21, 35), 7, 5, width=33, depth=2, places=19, hidden=41, drop_path=0.1), None),
    **{
        # Without a class token: its row has no relative places, so the last block's would learn nothing from it.
        f"vit-position-{name}": (
            ViTConfig((21, 35), 7, 5, width=42, depth=2, heads=3, prefix=(), position=name),
            (14, 49),
        )
        for name in ("2d", "relative", "none")
    },
}


@pytest.fixture(params=TINY)
def case(request) -> tuple[Encoder, torch.Tensor, tuple[int, int] | None]:
    config, other = TINY[request.param]
    torch.manual_seed(5)
    encoder = build(config).eval()
    with torch.no_grad():  # some parts start at zero, which would hide what stands before them
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder, torch.randn(2, *encoder.spec.shape(config.size)), other


def test_every_family_is_here():
    assert {config.family for config, _ in TINY.values()} == set(catalog.ARCHITECTURES)


@pytest.mark.parametrize("family", catalog.PRESETS)
def test_the_catalog_lists_the_presets(family):
    assert tuple(presets_of(family)) == catalog.PRESETS[family]


def test_the_spec_tells_the_truth(case):
    encoder, images, _ = case
    spec, features = encoder.spec, encoder(images)
    tokens = features.tokens
    b, n, d = tokens.x.shape
    assert (b, d, tokens.prefix) == (len(images), spec.width, len(spec.prefix))
    grid = tuple(-(-(side - 2 * spec.overlap_margin) // spec.strides[-1]) for side in images.shape[-2:])
    assert tokens.grid == ((spec.frames, *grid) if spec.frames else grid)
    assert n == tokens.prefix + prod(tokens.grid)
    assert (features.pooled is None) == (spec.pooled_width == 0)
    assert Pool(spec)(features).shape == (b, Pool(spec).width)
    assert len(features.levels) in (0, len(spec.strides))


def test_levels_are_what_the_blocks_named_or_the_stages_end_with(case):
    encoder, images, _ = case
    if isinstance(encoder, ColumnEncoder):
        depth, ends = len(encoder.blocks), {}
        encoder.blocks[0].register_forward_hook(lambda block, given, x: ends.update(first=x))
        features = encoder.tap(images, (depth, 1))
        last, first = features.levels
        assert torch.equal(features.tokens.x, encoder(images).tokens.x)
        assert torch.equal(last, features.tokens.map())
        end = ends["first"] if isinstance(ends["first"], Tokens) else features.tokens.with_x(ends["first"])
        assert torch.equal(first, end.with_x(encoder.norm(end.x)).map())
        assert not torch.equal(first, last)
        for wrong in ((), (0,), (depth + 1,)):
            with pytest.raises(SettingError, match=f"the blocks 1 to {depth}"):
                encoder.tap(images, wrong)
    elif len(encoder.spec.widths) > 1:
        levels = encoder.tap(images).levels
        assert tuple(level.shape[1] for level in levels) == encoder.spec.widths
        for level, stride in zip(levels, encoder.spec.strides, strict=True):
            assert level.shape[2:] == tuple(-(-side // stride) for side in images.shape[2:])
        with pytest.raises(SettingError, match="no single blocks"):
            encoder.tap(images, (1,))
    else:
        with pytest.raises(SettingError, match="whose blocks can be read"):
            encoder.tap(images)


def test_every_parameter_learns(case):
    encoder, images, _ = case
    encoder.train()
    Pool(encoder.spec)(encoder(images)).square().sum().backward()
    learning = [(name, p) for name, p in encoder.named_parameters() if p.requires_grad]
    assert [name for name, p in learning if p.grad is None or not p.grad.any()] == []


def test_another_size(case):
    encoder, images, other = case
    if encoder.spec.sizes == "fixed":
        stride = encoder.spec.strides[-1]
        with pytest.raises(SettingError, match="no other size"):
            encoder(torch.nn.functional.pad(images, (0, stride)))
    else:
        features = encoder(images.new_ones(1, *encoder.spec.shape(other)))
        rest = 2 * encoder.spec.overlap_margin
        assert features.tokens.grid[-2:] == tuple(
            -(-(side - rest) // encoder.spec.strides[-1]) for side in other
        )


def test_a_size_that_does_not_fit_is_refused(case):
    encoder, images, _ = case
    if encoder.spec.sizes == "every":
        return
    with pytest.raises(SettingError, match="multiple of"):
        encoder(torch.nn.functional.pad(images, (0, 1)))


def test_other_channels_are_refused(case):
    encoder, images, _ = case
    with pytest.raises(SettingError, match="channels"):
        encoder(images[..., :2, :, :])


def test_strange_inputs_are_refused(case):
    encoder, images, _ = case
    with pytest.raises(SettingError, match="height"):
        encoder(images, given={"height": torch.zeros(2)})


def test_bfloat16(case):
    encoder, images, _ = case
    exact = encoder(images).tokens.x
    rough = encoder.bfloat16()(images.bfloat16()).tokens.x
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.2


def test_deterministic(case):
    """One seed gives the same weights and the same dropped parts, also in training."""
    encoder, images, _ = case
    config = encoder.config
    if hasattr(config, "drop_path"):
        config = replace(config, drop_path=0.5)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        network = build(config).train()
        network.load_state_dict({k: v + 0.1 * torch.randn(v.shape) for k, v in network.state_dict().items()})
        found.append(network(images).tokens.x)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_export_keeps_the_fused_attention_and_a_free_batch(case):
    encoder, images, _ = case
    free = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(encoder, (images,), dynamic_shapes=free)
    more = torch.cat([images, images[:1] + 1])
    torch.testing.assert_close(program.module()(more).tokens.x, encoder(more).tokens.x)
    if encoder.spec.attention == "softmax":
        called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert any("scaled_dot_product_attention" in name for name in called)
        assert not any("softmax" in name for name in called)


@pytest.mark.parametrize(
    "name",
    [
        "vit",
        "dinov2-registers",
        "deit3",
        "mae-pooled",
        "dit",
        "swin",
        "t2t-performer",
        "supervit",
        "vvt",
        "wetmapformer",
        "mixer",
        "rf_detr",
        "detr",
        "eomt",
        "frames-registers",
        "timesformer-divided",
    ],
)
def test_compiles_into_one_graph(name):
    config, _ = TINY[name]
    encoder = build(config).eval()
    images = torch.randn(2, *encoder.spec.shape(config.size))
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).tokens.x, encoder(images).tokens.x)


def test_recording_changes_nothing(case):
    encoder, images, _ = case
    record = Recorder()
    recorded = encoder(images, record=record).tokens.x
    torch.testing.assert_close(recorded, encoder(images).tokens.x, rtol=0, atol=encoder.spec.tolerance)
    assert len(record.maps) == encoder.spec.blocks


def test_rows_sum_to_one(case):
    encoder, images, _ = case
    if encoder.spec.attention != "softmax":
        return
    record = Recorder()
    encoder(images, record=record)
    for seen in record.maps:
        rows = seen.dense().sum(-1)
        asked = 1 - seen.unasked(torch.ones(len(rows), rows.shape[-1]))
        assert asked.any()
        torch.testing.assert_close(rows, asked[:, None].expand_as(rows))


def test_gradients_reach_the_maps(case):
    encoder, images, _ = case
    record = Recorder()
    score = Pool(encoder.spec)(encoder(images, record=record)).square().sum()
    assert len(record.maps) == encoder.spec.blocks
    if not record.maps:
        return
    gradients = torch.autograd.grad(score, [seen.weights for seen in record.maps])
    assert all(gradient.any() for gradient in gradients)


def test_checkpointing_gives_the_same_gradients(case):
    encoder, images, _ = case

    def gradients() -> list[torch.Tensor]:
        loss = Pool(encoder.spec)(encoder(images)).square().sum()
        return list(torch.autograd.grad(loss, [p for p in encoder.parameters() if p.requires_grad]))

    plain = gradients()
    assert set_checkpointing(encoder, True) >= 1
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_summary_is_the_prefix_of_the_whole(case):
    encoder, images, _ = case
    count = len(encoder.spec.prefix)
    whole = encoder(images).tokens.x[:, :count]
    set_checkpointing(encoder, True)
    summary = encoder.summarise(images).tokens
    torch.testing.assert_close(summary.x[:, :count], whole, rtol=0, atol=2e-6)
    wanted, parameters = whole.square().sum(), [p for p in encoder.parameters() if p.requires_grad]
    if count:  # every parameter gets the gradient that it would have got; a norm of the mean gets none
        a = torch.autograd.grad(wanted, parameters, materialize_grads=True)
        b = torch.autograd.grad(summary.x[:, :count].square().sum(), parameters, materialize_grads=True)
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def test_a_description_rebuilds_the_network(case):
    encoder, images, _ = case
    again = rebuild(json.loads(json.dumps(describe(encoder)))).eval()
    again.load_state_dict(encoder.state_dict())
    assert again.config == encoder.config
    assert torch.equal(again(images).tokens.x, encoder(images).tokens.x)
