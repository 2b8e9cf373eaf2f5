"""VVT against its official outputs, square and not, both forms of its attention, and its sizes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import WeightsError
from vitrail.layers.heads import LinearHead
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.layers.vicinity_attention import VicinityAttention, bounded
from vitrail.models.factory import build, count_macs, create_encoder
from vitrail.models.vvt import VVTConfig
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import load, save
from vitrail.weights.tables import official

SMALL = VVTConfig(64, widths=(24, 48, 64, 96), heads=(1, 2, 4, 6), hidden=(4, 4, 2, 2))
PRODUCT = VVTConfig(
    64,
    widths=(24, 48, 64, 96),
    depths=(1, 1, 1, 1),
    heads=(1, 2, 4, 6),
    hidden=(4, 4, 2, 2),
    reduce=(1, 2, 2, 4),
    shrink=(2, 2, 1, 1),
    form="product",
)


def opened(shared, name, config):
    source = load_file(shared(f"goldens/{name}.safetensors"))
    encoder = build(config).eval()
    loaded = load(official.VVT, source, {key: tuple(v.shape) for key, v in encoder.state_dict().items()})
    encoder.load_state_dict(loaded.encoder)
    head = LinearHead(encoder.spec, 10)
    head.load_state_dict(loaded.head)
    back = save(official.VVT, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    return encoder, head, load_file(shared(f"goldens/{name}.io.safetensors"))


def test_official_outputs(shared):
    encoder, head, golden = opened(shared, "vvt", SMALL)
    with torch.no_grad():
        for end in ("", "_rect"):
            features = encoder(golden[f"input{end}"])
            torch.testing.assert_close(head(features)["logits"], golden[f"logits{end}"], rtol=0, atol=2e-5)
            for i, level in enumerate(features.levels, 1):
                expected = golden[f"stage{i}{end}"]
                torch.testing.assert_close(level.flatten(2).mT, expected, rtol=0, atol=2e-5)
        block = encoder.stages[0][0]
        mixed = block.attention(Tokens(golden["attn_block1_0_in"], (16, 16)))
        torch.testing.assert_close(mixed, golden["attn_block1_0_out"], rtol=0, atol=2e-5)


def test_official_outputs_of_the_product_form_with_coarse_keys(shared):
    encoder, head, golden = opened(shared, "vvt_product_sr", PRODUCT)
    with torch.no_grad():
        logits = head(encoder(golden["input"]))["logits"]
        torch.testing.assert_close(logits, golden["logits"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", ["sum", "product"])
def test_nearness_by_hand(form):
    torch.manual_seed(3)
    attention = VicinityAttention(6, 1, reduce=1, form=form)
    tokens = Tokens(torch.randn(1, 15, 6), (3, 5))
    record = Recorder()
    attention(tokens, record)
    q, k = attention.query(tokens.x).relu()[0], attention.key(tokens.x).relu()[0]
    i, j = (1, 4), (2, 0)
    down, right = (torch.tensor(torch.pi / 2 * (i[a] - j[a]) / (3, 5)[a]).cos() for a in (0, 1))
    near = down + right if form == "sum" else down * right
    seen = record.maps[0].dense()[0, 0]
    row = seen[1 * 5 + 4]
    ratio = row[2 * 5 + 0] / row[1 * 5 + 4]
    itself = (q[9] @ k[9]) * (2 if form == "sum" else 1)
    torch.testing.assert_close(ratio, (q[9] @ k[10]) * near / itself)


def test_coarse_keys_stand_on_the_middle_of_their_squares():
    attention = VicinityAttention(6, 1, reduce=1, shrink=2)
    record = Recorder()
    attention(Tokens(torch.randn(1, 24, 6), (4, 6)), record)
    assert record.maps[0].cols.tolist() == [[7, 9, 11, 19, 21, 23]]
    assert record.maps[0].dense().shape == (1, 1, 24, 24)


def test_weights_are_built_for_a_recorder_alone(monkeypatch):
    """Without a recorder, no product has as many elements as the number of tokens squared."""
    attention = VicinityAttention(6, 1, reduce=1)
    largest = 0
    product = torch.Tensor.__matmul__

    def watched(a, b):
        nonlocal largest
        out = product(a, b)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    attention(Tokens(torch.randn(1, 400, 6), (20, 20)))
    assert largest < 400 * 400


def test_bounds_keep_signs_and_zeros():
    found = bounded(torch.tensor([0.0, 1e-6, -1e-6, 3.0, -1e6]))
    assert found.tolist() == pytest.approx([0.0, 1e-4, -1e-4, 3.0, -1e4])


def test_a_training_script_s_file_is_recognised(tmp_path):
    torch.manual_seed(3)
    with torch.device("meta"):
        blank = create_encoder("vvt_t")
    encoder = blank.to_empty(device="cpu")
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    tensors = save(official.VVT, encoder.state_dict(), LinearHead(encoder.spec, 5).state_dict())
    torch.save({"model": tensors}, tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", to="official")
    assert found.config == encoder.config
    back = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(back[key], value) for key, value in tensors.items())
    with pytest.raises(WeightsError, match="vvt_t"):
        from_path(tmp_path / "a.pth", "vvt_s")


SIZES = {
    ("vvt_t", 224): (12.882, 2.99),
    ("vvt_s", 224): (25.492, 5.59),
    ("vvt_m", 224): (47.907, 9.39),
    ("vvt_l", 224): (61.849, 10.8),
    ("vvt_t", 384): (12.882, 8.77),
    ("vvt_s", 384): (25.492, 16.4),
    ("vvt_m", 384): (47.907, 27.6),
    ("vvt_l", 384): (61.849, 31.7),
}


@pytest.mark.parametrize(("name", "image"), SIZES)
def test_sizes(name, image):
    with torch.device("meta"):
        encoder = create_encoder(name, image=image)
    params, macs = SIZES[name, image]
    count = sum(p.numel() for p in encoder.parameters()) + 513_000
    assert count / 1e6 == pytest.approx(params, abs=5.1e-4)
    digit = 10 ** -len(str(macs).partition(".")[2])
    assert (count_macs(encoder, image) + 512_000) / 1e9 == pytest.approx(macs, abs=digit)
