"""T2T-ViT against its official outputs, and its sizes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vitrail.layers.heads import LinearHead
from vitrail.layers.position import SinePosition
from vitrail.models.factory import build, count_macs, create_encoder
from vitrail.models.t2t import T2TConfig
from vitrail.weights.convert import convert
from vitrail.weights.rules import load, save
from vitrail.weights.tables import official

TABLES = {"performer": official.T2T_PERFORMER, "transformer": official.T2T_TRANSFORMER}


@pytest.mark.parametrize("kind", TABLES)
def test_official_outputs(shared, kind):
    source = load_file(shared(f"goldens/t2t_{kind}.safetensors"))
    golden = load_file(shared(f"goldens/t2t_{kind}.io.safetensors"))
    encoder = build(T2TConfig(64, tokens=kind, token_width=32, width=96, depth=3, heads=4)).eval()
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    loaded = load(TABLES[kind], source, shapes)
    sines = encoder.position.table.clone()
    torch.testing.assert_close(sines, loaded.encoder["position.table"], rtol=0, atol=1e-6)
    encoder.load_state_dict(loaded.encoder)
    head = LinearHead(encoder.spec, 10)
    head.load_state_dict(loaded.head)
    with torch.no_grad():
        split = encoder.split(golden["input"]).x
        features = encoder(golden["input"])
        torch.testing.assert_close(split, golden["tokens"], rtol=0, atol=3e-5)
        torch.testing.assert_close(features.tokens.x[:, 0], golden["features"], rtol=0, atol=3e-5)
        torch.testing.assert_close(head(features)["logits"], golden["logits"], rtol=0, atol=3e-5)
    back = save(TABLES[kind], loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


def test_random_features_start_as_the_official_ones(shared):
    source = load_file(shared("goldens/t2t_performer.safetensors"))["tokens_to_token.attention1.w"]
    config = T2TConfig(64, token_width=32, width=96, depth=1, heads=4)
    ours = build(config).split.steps[0].directions
    torch.testing.assert_close(ours @ ours.T, source @ source.T, rtol=0, atol=1e-4)


def test_a_training_script_s_file_is_recognised(tmp_path):
    torch.manual_seed(3)
    encoder = build(T2TConfig(64, token_width=32, width=64, depth=2, heads=1))
    tensors = save(official.T2T_PERFORMER, encoder.state_dict(), LinearHead(encoder.spec, 5).state_dict())
    wrapped = {"state_dict_ema": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "a.pth.tar")
    found = convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors", to="official", network={"heads": 1})
    assert found.config == encoder.config
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], value) for key, value in tensors.items())


def test_sines_by_hand():
    table = SinePosition(4, (1, 2), prefix=1).table[0]
    expected = [[0, 1, 0, 1], *([torch.sin(torch.tensor(n)), torch.cos(torch.tensor(n))] for n in (1.0, 2.0))]
    torch.testing.assert_close(table[0], torch.tensor(expected[0], dtype=torch.float32))
    torch.testing.assert_close(table[1:, :2], torch.tensor(expected[1:]))
    torch.testing.assert_close(table[1:, 2], torch.sin(torch.tensor([0.01, 0.02])))


SIZES = {
    ("t2t_vit_7", 224): (4.310, 1.15),
    ("t2t_vit_10", 224): (5.889, 1.52),
    ("t2t_vit_12", 224): (6.942, 1.76),
    ("t2t_vit_14", 224): (21.546, 4.78),
    ("t2t_vit_14", 384): (21.691, 16.4),
    ("t2t_vit_19", 224): (39.177, 8.48),
    ("t2t_vit_24", 224): (64.106, 13.66),
    ("t2t_vit_t_14", 224): (21.541, 6.09),
    ("t2t_vit_t_19", 224): (39.173, 9.79),
    ("t2t_vit_t_24", 224): (64.101, 14.97),
    ("t2t_vit_14_resnext", 224): (21.546, 4.78),
    ("t2t_vit_14_wide", 224): (25.156, 5.23),
}


@pytest.mark.parametrize(("name", "image"), SIZES)
def test_sizes(name, image):
    with torch.device("meta"):
        encoder = create_encoder(name, image=image)
    params, macs = SIZES[name, image]
    head = 1000 * encoder.spec.width
    assert (sum(p.numel() for p in encoder.parameters()) + head + 1000) / 1e6 == pytest.approx(
        params, abs=5e-4
    )
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, image) + head) / 1e9 == pytest.approx(macs, abs=digit)
