"""The decoder of masked pretraining, on the features of every plain column."""

from __future__ import annotations

import pytest
import torch

from vitrail.core.errors import SettingError
from vitrail.layers.gradient_checkpointing import set_checkpointing
from vitrail.layers.masked_decoder import MaskedDecoder, patchify, unpatchify
from vitrail.layers.position import GridSines, grid_sines, resize_grid
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.models.deit import DeiTConfig
from vitrail.models.factory import build
from vitrail.models.mae import MAEConfig
from vitrail.models.vit import ViTConfig

TINY = {
    "no prefix": ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3, prefix=()),
    "class": ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=2, heads=3),
    "mae": MAEConfig(image=(21, 35), patch=7, channels=5, width=44, depth=2, heads=4),
    "distillation": DeiTConfig((21, 35), 7, 5, width=33, depth=2, heads=3, prefix=("cls", "dist")),
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(21, 35), (14, 49)])
def test_every_patch_is_predicted_from_those_that_are_seen(name, size):
    encoder, images = build(TINY[name]).eval(), torch.randn(2, 5, *size)
    decoder = MaskedDecoder(encoder.spec, 7, 5, width=28, depth=2, heads=2).eval()
    rows, cols = size[0] // 7, size[1] // 7
    kept = torch.stack([torch.randperm(rows * cols)[:4] for _ in images])
    features = encoder(images, given={"kept": kept})
    predicted = decoder(features)["patches"]
    assert predicted.shape == (2, rows * cols, 7 * 7 * 5)
    # What was not seen changes nothing, and the order of what was seen neither.
    other = unpatchify(patchify(images, 7) + 1, (rows, cols), 5)
    mixed = torch.ones(2, rows * cols, 1).scatter(1, kept[..., None], 0)
    hidden = unpatchify(mixed.expand(-1, -1, 245).contiguous(), (rows, cols), 5).bool()
    changed = encoder(torch.where(hidden, other, images), given={"kept": kept.flip(1)})
    torch.testing.assert_close(decoder(changed)["patches"], predicted, rtol=0, atol=2e-6)
    assert not torch.allclose(decoder(encoder(other, given={"kept": kept}))["patches"], predicted, atol=1e-3)


def test_prefix_tokens_go_through_the_decoder():
    tokens = Tokens(torch.randn(1, 3 + 6, 20, requires_grad=True), (2, 3), prefix=3)
    decoder = MaskedDecoder(build(TINY["class"]).spec, 7, 5, width=28, depth=1, heads=2)
    decoder.embed = torch.nn.Linear(20, 28)
    filled = decoder.filled(tokens)
    assert (filled.x.shape, filled.prefix, filled.grid) == ((1, 9, 28), 3, (2, 3))
    torch.testing.assert_close(filled.x[:, :3], decoder.embed(tokens.x[:, :3]))
    torch.testing.assert_close(filled.patches, decoder.embed(tokens.patches) + grid_sines(28, (2, 3)))
    gradient = torch.autograd.grad(decoder.decoded(tokens).patches.sum(), tokens.x)[0]
    assert gradient[:, :3].abs().sum(2).all()


def test_its_attention_can_be_recorded_and_its_blocks_checkpointed():
    encoder, images = build(TINY["class"]).eval(), torch.randn(2, 5, 21, 35)
    decoder = MaskedDecoder(encoder.spec, 7, 5, width=28, depth=3, heads=2)
    tokens = encoder(images, given={"kept": torch.tensor([[3, 0, 9], [14, 2, 5]])}).tokens
    record = Recorder()
    recorded = decoder.decoded(tokens, record)
    torch.testing.assert_close(recorded.x, decoder.decoded(tokens).x, rtol=0, atol=2e-6)
    assert [one.dense().shape for one in record.maps] == [(2, 2, 16, 16)] * 3
    assert (record.maps[0].grid, record.maps[0].prefix) == ((3, 5), 1)
    assert set_checkpointing(decoder, True) == 1
    torch.testing.assert_close(decoder.decoded(tokens).x, recorded.x, rtol=0, atol=2e-6)


def test_initial_values_are_those_of_the_paper():
    torch.manual_seed(3)
    encoder = build(MAEConfig(image=32, patch=8, width=96, depth=1, heads=2))
    decoder = MaskedDecoder(encoder.spec, 8, 3, width=64, depth=1, heads=2)
    for network in (encoder, decoder):
        for name, part in network.named_parameters():
            if name.endswith("bias"):
                assert not part.any(), name
            elif part.ndim in (2, 4):
                rows, cols = part.flatten(1).shape
                assert part.abs().max().item() == pytest.approx((6 / (rows + cols)) ** 0.5, rel=0.02), name
    assert decoder.mask.std().item() == pytest.approx(0.02, rel=0.3)
    assert encoder.prefix.tokens.std().item() == pytest.approx(0.02, rel=0.3)
    assert not encoder.position.table.requires_grad


def test_the_table_is_resized_and_not_computed_again():
    position = GridSines(12, (3, 5), prefix=1)
    assert not position.table[:, 0].any()
    fitted = position.fitted((4, 6))
    assert not fitted[:, 0].any()
    resized = resize_grid(position.table[:, 1:], (3, 5), (4, 6), mode="bicubic")
    assert torch.equal(fitted[:, 1:], resized)
    assert not torch.allclose(resized[0], grid_sines(12, (4, 6)), atol=1e-2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(SettingError, match="multiple of 4, not 30"):
        MaskedDecoder(build(TINY["class"]).spec, 7, 5, width=30)
    with pytest.raises(SettingError, match="multiple of 4, not 33"):
        build(ViTConfig(image=28, patch=7, width=33, depth=1, heads=3, position="sine"))
    with pytest.raises(SettingError, match="not a multiple of 7"):
        patchify(torch.zeros(1, 3, 14, 15), 7)
