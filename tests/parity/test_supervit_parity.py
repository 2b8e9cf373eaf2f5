"""SuperViT against its official outputs at all twelve points, both forms, and its sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from vitrail.layers.elastic import KEEPS, OperatingPoint, at_size, points, set_keep, smaller_sizes
from vitrail.layers.heads import DenseHead, LinearHead
from vitrail.models.factory import build, count_macs, create_encoder
from vitrail.models.supervit import SuperViTConfig
from vitrail.runs.network import build_task
from vitrail.tasks.base import Following
from vitrail.weights.convert import convert
from vitrail.weights.rules import load, save
from vitrail.weights.tables import official

POINTS = points((*smaller_sizes((224, 224), 16), (224, 224)), KEEPS)
FORMS = {
    "deit": (SuperViTConfig(width=48, heads=3), LinearHead),
    "lvvit": (
        SuperViTConfig(width=48, depth=16, heads=3, hidden=3.0, form="lvvit", norm_eps=1e-5),
        DenseHead,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_official_outputs_and_losses(shared, form):
    source = load_file(shared(f"goldens/supervit_{form}.safetensors"))
    golden = load_file(shared(f"goldens/supervit_{form}.io.safetensors"))
    config, head_of = FORMS[form]
    encoder = build(config).eval()
    head = head_of(encoder.spec, 10).eval()
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    loaded = load(official.SUPERVIT, source, shapes)
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    found = {}
    with torch.no_grad():
        for point in POINTS:
            set_keep(encoder, point.keep)
            found[point] = head(encoder(at_size(golden["input"], point.size)))["logits"]
            expected = golden[f"logits_{point.size[0]}_{point.keep:g}"]
            torch.testing.assert_close(found[point], expected, rtol=0, atol=3e-5)
    whole, half, small, thin = (
        found[OperatingPoint((side, side), keep)]
        for side, keep in ((224, 1.0), (224, 0.5), (160, 1.0), (160, 0.7))
    )
    target = golden["soft_target"]
    follow = build_task("classify", [*"abcdefghij"], {}).follow
    losses = [F.cross_entropy(whole, target), follow({"logits": half}, {"logits": whole}, Following())]
    losses += [F.cross_entropy(small, target), follow({"logits": thin}, {"logits": small}, Following())]
    expected = golden["losses_224_1__224_0.5__160_1__160_0.7"]
    torch.testing.assert_close(torch.stack(losses), expected, rtol=0, atol=3e-5)
    back = save(official.SUPERVIT, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


@pytest.mark.parametrize("form", FORMS)
def test_a_training_script_s_file_is_recognised(tmp_path, form):
    torch.manual_seed(3)
    whole = {"deit": {}, "lvvit": {"hidden": 3.0, "norm_eps": 1e-5}}[form]
    config = SuperViTConfig(image=112, width=64, depth=2, heads=1, form=form, sides=(4, 5, 6, 7), **whole)
    encoder = build(config)
    head = FORMS[form][1](encoder.spec, 5)
    tensors = save(official.SUPERVIT, encoder.state_dict(), head.state_dict())
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", to="official", network={"heads": 1})
    assert found.config == config
    assert found.head.keys() == head.state_dict().keys()
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], value) for key, value in tensors.items())


TOKENS = {1.0: (197, 197, 197, 197), 0.7: (197, 139, 99, 71), 0.5: (197, 100, 51, 27)}


@pytest.mark.parametrize("keep", TOKENS)
def test_tokens_left_after_each_station(keep):
    encoder = build(SuperViTConfig(width=8, heads=2)).eval()
    counts = []
    for turn in (0, 3, 6, 9):
        encoder.blocks[turn].norm2.register_forward_hook(
            lambda _, inputs, __: counts.append(inputs[0].shape[1])
        )
    set_keep(encoder, keep)
    with torch.no_grad():
        left = encoder(torch.randn(1, 3, 224, 224)).tokens
    assert tuple(counts) == TOKENS[keep]
    assert left.x.shape[1] == TOKENS[keep][-1]


COSTS = {  # billions of multiply-adds at 8², 10², 12², 14² tokens, for each share of kept tokens
    "supervit_s": {
        0.5: (0.74, 1.16, 1.67, 2.30),
        0.7: (0.97, 1.52, 2.19, 3.01),
        1.0: (1.44, 2.27, 3.32, 4.60),
    },
    "supervit_lvvit_s": {
        0.5: (1.12, 1.74, 2.50, 3.43),
        0.7: (1.40, 2.19, 3.15, 4.32),
        1.0: (2.05, 3.24, 4.73, 6.55),
    },
}


@pytest.mark.parametrize(("name", "params"), [("supervit_s", 22.170), ("supervit_lvvit_s", 26.271)])
def test_sizes(name, params):
    with torch.device("meta"):
        encoder = create_encoder(name)
    heads = 1 + encoder.spec.dense
    count = sum(p.numel() for p in encoder.parameters()) + heads * 1000 * 385
    assert count / 1e6 == pytest.approx(params, abs=5e-4)
    for keep, costs in COSTS[name].items():
        for side, cost in zip((8, 10, 12, 14), costs, strict=True):
            left = side * side + 1
            for _ in encoder.config.stations if keep < 1 else ():
                left = 1 + -int(-keep * left // 1)
            read = 1 + (left - 1) * encoder.spec.dense  # the tokens that a classifier reads
            macs = count_macs(encoder, 16 * side, keep) + 384_000 * read
            assert macs / 1e9 == pytest.approx(cost, abs=0.0051)
