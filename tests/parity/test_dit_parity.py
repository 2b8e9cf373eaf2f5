"""DiT against its official outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.layers.adaptive_norm import NoiseHead
from vitrail.models.dit import DiT, DiTConfig, time_sines
from vitrail.models.factory import build, count_macs, count_params, create_encoder
from vitrail.runs.network import Network
from vitrail.weights.rules import load, save
from vitrail.weights.tables import dit as tables

GOLDEN = DiTConfig(image=8, channels=4, width=96, depth=3, heads=4, classes=10)

Find = Callable[[str], Path]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def golden_network(shared: Find) -> Network:
    """The official weights, read by the published table; every tensor goes back bit-equal."""
    source = load_file(shared("goldens/dit.safetensors"))
    encoder = build(GOLDEN).eval()
    head = encoder.own_head("generate", 10)
    assert isinstance(encoder, DiT)
    assert isinstance(head, NoiseHead)
    loaded = load(tables.OFFICIAL, source, shapes(encoder), head=shapes(head))
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    return Network(encoder, head, ("noise", "spread")).eval()


def close(ours: Tensor, theirs: Tensor, atol: float = 5e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
def test_official_outputs(shared: Find):
    network = golden_network(shared)
    golden = load_file(shared("goldens/dit.io.safetensors"))
    inputs = {"images": golden["x"], "time": golden["t"], "label": golden["y"]}
    output = network(inputs)
    close(torch.cat([output["noise"], output["spread"]], 1), golden["out"])
    tokens = network.encode(inputs).tokens
    assert tokens.condition is not None
    close(tokens.condition, golden["c"], 2e-5)
    close(time_sines(golden["t"], 256), golden["t_embedding_256"])
    untrained = build(GOLDEN)
    close(untrained.position.table, network.encoder.position.table, 1e-6)


@torch.no_grad()
def test_untrained_it_predicts_no_noise():
    encoder = create_encoder("dit_digits")
    head = encoder.own_head("generate", 10)
    assert head is not None
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    output = head(encoder(images))
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        "noise": (2, 3, 32, 32),
        "spread": (2, 3, 32, 32),
    }
    assert not any(value.any() for value in output.values())


@torch.no_grad()
def test_without_time_and_label_it_is_an_image_without_noise_of_no_class(shared: Find):
    network = golden_network(shared)
    images = load_file(shared("goldens/dit.io.safetensors"))["x"]
    time, label = torch.zeros(4, dtype=torch.int64), torch.full((4,), 10)
    given = network({"images": images, "time": time, "label": label})
    assert torch.equal(network({"images": images})["noise"], given["noise"])
    other = network({"images": images, "time": time, "label": label - 1})
    assert not torch.equal(other["noise"], given["noise"])


SIZES = {  # millions of parameters with 1000 classes, billions of multiply-adds for 32 x 32 latents of 4 channels
    "dit_s2": (32.96, 6.06),
    "dit_s4": (32.95, 1.41),
    "dit_s8": (33.15, 0.36),
    "dit_b2": (130.5, 23.0),
    "dit_b4": (130.5, 5.56),
    "dit_b8": (130.9, 1.42),
    "dit_l2": (458.1, 80.7),
    "dit_l4": (458.1, 19.7),
    "dit_l8": (458.6, 5.01),
    "dit_xl2": (675.1, 118.6),
    "dit_xl4": (675.1, 29.0),
    "dit_xl8": (675.7, 7.39),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        encoder = create_encoder(name, image=32, channels=4)
        head = encoder.own_head("generate", 1000)
    assert head is not None
    params, macs = SIZES[name]
    assert (count_params(encoder) + count_params(head)) / 1e6 == pytest.approx(params, rel=1e-3)
    assert count_macs(encoder, 32) / 1e9 == pytest.approx(macs, rel=0.02)
