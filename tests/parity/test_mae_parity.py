"""MAE against its official outputs, and against transformers and timm."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.layers.heads import LinearHead
from vitrail.layers.masked_decoder import MaskedDecoder, patchify, unpatchify
from vitrail.layers.position import grid_sines
from vitrail.models.factory import build
from vitrail.models.mae import MAE, MAEConfig
from vitrail.weights.rules import load, save
from vitrail.weights.tables import mae as tables

GOLDEN = MAEConfig(image=64, width=96, depth=3, heads=4, decoder=(64, 2, 4))


class Pair(NamedTuple):
    """An encoder and the decoder beside it."""

    encoder: MAE
    decoder: MaskedDecoder


@pytest.mark.parametrize(("width", "side"), [(64, 4), (96, 7), (128, 3)])
def test_sines(shared, width, side):
    golden = load_file(shared("goldens/mae_sincos.io.safetensors"))[f"sincos_{width}_{side}"]
    ours = grid_sines(width, (side, side))
    torch.testing.assert_close(ours, golden[1:], rtol=0, atol=1e-6)
    assert golden[0].eq(0).all()


def paired(config: MAEConfig) -> Pair:
    encoder = build(config).eval()
    decoder = encoder.own_head("pretrain", 0)
    assert isinstance(encoder, MAE)
    assert isinstance(decoder, MaskedDecoder)
    return Pair(encoder, decoder.eval())


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@torch.no_grad()
def test_official_pretraining(shared):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    ours = paired(GOLDEN)
    loaded = load(tables.OFFICIAL, source, shapes(ours.encoder), head=shapes(ours.decoder))
    ours.encoder.load_state_dict(loaded.encoder)
    ours.decoder.load_state_dict(loaded.head)
    kept = golden["noise"].argsort(1)[:, :4]
    features = ours.encoder(golden["input"], given={"kept": kept})
    close(features.tokens.x, golden["latent"])
    said = ours.decoder(features)["patches"]
    close(said, golden["pred"])
    pixels = patchify(golden["input"], 16)
    close(pixels, golden["patchified"], 0)
    assert torch.equal(unpatchify(pixels, (4, 4), 3), golden["input"])
    hidden = torch.ones(2, 16).scatter(1, kept, 0)
    assert torch.equal(hidden, golden["mask"])
    loss = (((said - pixels) ** 2).mean(2) * hidden).sum() / hidden.sum()
    close(loss, golden["loss"], 1e-5)
    var, mean = torch.var_mean(pixels, 2, keepdim=True)
    loss = (((said - (pixels - mean) / (var + 1e-6).sqrt()) ** 2).mean(2) * hidden).sum() / hidden.sum()
    close(loss, golden["loss_norm_pix"], 1e-5)
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys() - {tables.PLACES}
    assert all(torch.equal(back[key], source[key]) for key in back)


@torch.no_grad()
def test_official_encoder_of_all_patches(shared):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    encoder = paired(GOLDEN).encoder
    encoder.load_state_dict(load(tables.ENCODER, source, shapes(encoder)).encoder)
    order = golden["ids_restore_mask0"].argsort(1)  # the official code shuffles even where nothing is masked
    shuffled = encoder(golden["input"], given={"kept": order}).tokens
    close(shuffled.x, golden["latent_mask0"])
    close(shuffled.map(), encoder(golden["input"]).tokens.map())


@torch.no_grad()
def test_official_classifier(shared):
    source = load_file(shared("goldens/mae_finetune_gap.safetensors"))
    golden = load_file(shared("goldens/mae_finetune_gap.io.safetensors"))
    encoder = build(MAEConfig(image=64, width=96, depth=3, heads=4, pooled=True)).eval()
    head = LinearHead(encoder.spec, 10)
    loaded = load(tables.ENCODER, source, shapes(encoder))
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    features = encoder(golden["input"])
    close(head.vectors(features), golden["features"])
    close(head(features)["logits"], golden["logits"])
    back = save(tables.ENCODER, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


def close(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
