"""Rollout against the dense formula, streamed against recorded, and against attention that transformers gives."""

from __future__ import annotations

import pytest
import torch
from questions import ask, pictures
from transformers import ViTConfig as HubConfig
from transformers import ViTForImageClassification

from vitrail.core.errors import SettingError
from vitrail.explainers import rollout, streaming
from vitrail.explainers.grids import overlap, spread
from vitrail.explainers.methods import build_explainer
from vitrail.explainers.rollout import Rollout, RolloutSettings, follow, on_grid, start
from vitrail.layers.elastic import set_keep
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, Tokens
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.weights.pretrained import from_path

SMALL = ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=3, heads=3)


def dense(subject, images, settings=RolloutSettings()):
    with torch.inference_mode():
        features = subject.network.encoder(images)
        layers = rollout.dense(subject, images, settings)
        return on_grid(follow(layers, start(subject, features), features))


def test_rollout_equals_the_dense_product():
    subject = ask("vit_digits")
    images = pictures(subject, 3)
    recorder = Recorder()
    subject.network.encoder(images, record=recorder)
    product = torch.eye(65).expand(3, 65, 65)
    plain = product
    for one in recorder.maps:
        mean = one.dense().mean(1)
        product, plain = (0.5 * mean + 0.5 * torch.eye(65)) @ product, mean @ plain
    assert torch.allclose(Rollout()(subject, images).flatten(1), product[:, 0, 1:], atol=1e-6)
    found = Rollout(RolloutSettings(skip=False))(subject, images)
    assert torch.allclose(found.flatten(1), plain[:, 0, 1:], atol=1e-6)


@pytest.mark.parametrize("at_once", [40, 2_000_000])
@pytest.mark.parametrize(
    "settings",
    [
        RolloutSettings(),
        RolloutSettings(heads="max", discard=0.3),
        RolloutSettings(heads="min", skip=False),
    ],
)
@pytest.mark.parametrize(
    "config",
    [SMALL, SwinConfig((48, 72), 2, 5, width=14, depths=(2, 2), heads=(1, 2), window=3)],
    ids=["vit", "swin"],
)
def test_streamed_equals_dense(monkeypatch, config, settings, at_once):
    monkeypatch.setattr(streaming, "AT_ONCE", at_once)
    subject = ask(config)
    images = pictures(subject)
    found = Rollout(settings)(subject, images)
    torch.testing.assert_close(found, dense(subject, images, settings), rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rows_that_do_not_add_to_1_are_made_whole(heads):
    weights = torch.tensor([[[[0.5, 0.25, 0.5], [0.125, 0.125, 0.0]]]])  # as linear attention may give them
    fused = RolloutSettings(heads=heads).fuse(weights)
    torch.testing.assert_close(fused[0, 0], torch.tensor([[0.4, 0.2, 0.4], [0.5, 0.5, 0.0]]))


def test_streaming_never_holds_a_whole_map(monkeypatch):
    monkeypatch.setattr(streaming, "AT_ONCE", 100)
    sizes = []
    plain = streaming.softmax
    monkeypatch.setattr(
        streaming, "softmax", lambda *parts: sizes.append(plain(*parts).numel()) or plain(*parts)
    )
    subject = ask(SMALL)
    Rollout()(subject, pictures(subject, 1))
    assert max(sizes) <= 100
    last = sizes[-3 * 8 :]  # the last block comes first, and there the class token alone is followed
    assert len(sizes) < 3 * 16 + 1, last


def test_discarding_keeps_the_largest_of_every_row():
    weights = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]])
    fused = RolloutSettings(discard=0.5).fuse(weights)[:, 0]
    assert torch.allclose(
        fused, torch.tensor([[[0.625, 0.375, 0.0], [0.0, 1 / 9, 8 / 9]]])
    ) or torch.allclose(fused, torch.tensor([[[0.625, 0.375, 0.0], [1 / 9, 0.0, 8 / 9]]]))
    assert torch.allclose(fused.sum(-1), torch.ones(1, 2))


@pytest.mark.parametrize("wrong", [{"heads": "sum"}, {"discard": 1.0}, {"discard": -0.1}])
def test_other_settings_are_refused(wrong):
    with pytest.raises(SettingError):
        RolloutSettings(**wrong)
    with pytest.raises(SettingError, match="attention"):
        build_explainer("rollout", {"layer": 3})


def test_rollout_of_transformers_attentions(tmp_path):
    """Computed by hand from the eager attentions of transformers, with the same weights."""
    torch.manual_seed(0)
    theirs = ViTForImageClassification(
        HubConfig(
            hidden_size=33, num_hidden_layers=3, num_attention_heads=3, intermediate_size=41, image_size=35,
            patch_size=7, num_channels=5, num_labels=3, attn_implementation="eager", layer_norm_eps=1e-6,
        )
    ).eval()  # fmt: skip
    config = ViTConfig(image=35, patch=7, channels=5, width=33, depth=3, heads=3, hidden=41)
    subject = ask(config)
    theirs.save_pretrained(tmp_path)
    subject.network.encoder = from_path(tmp_path).build().requires_grad_(False)
    images = pictures(subject)
    with torch.no_grad():
        attentions = theirs(images, output_attentions=True).attentions
    product = torch.eye(26).expand(2, 26, 26)
    for one in attentions:
        mixed = one.mean(1) + torch.eye(26)
        product = (mixed / mixed.sum(-1, keepdim=True)) @ product
    found = Rollout()(subject, images)
    torch.testing.assert_close(found.flatten(1), product[:, 0, 1:], rtol=0, atol=1e-6)


def test_a_row_follows_only_tokens_that_are_left():
    subject = ask(ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=4, heads=3))
    images = pictures(subject)
    whole = Rollout()(subject, images)
    set_keep(subject.network, 0.5)
    recorder = Recorder()
    features = subject.network.encoder(images, record=recorder)
    product = torch.eye(16).expand(2, 16, 16)
    for one in recorder.maps:
        product = (0.5 * one.dense().mean(1) + 0.5 * torch.eye(16)) @ product
    found = Rollout()(subject, images)
    torch.testing.assert_close(found.flatten(1), product[:, 0, 1:], rtol=0, atol=1e-6)
    assert not torch.allclose(found, whole, atol=1e-4)
    assert features.tokens.kept.shape[1] < 15


def test_rollout_fits_other_sizes_and_shapes():
    subject = ask("vit_digits")
    assert Rollout()(subject, torch.randn(1, 3, 24, 44)).shape == (1, 6, 11)


def test_a_pyramid_is_followed_to_its_finest_grid():
    subject = ask(SwinConfig((48, 72), 2, 5, width=14, depths=(2, 2), heads=(1, 2), window=3))
    found = Rollout()(subject, pictures(subject))
    assert found.shape == (2, 24, 36)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2))


def test_spreading_keeps_the_sum_and_the_place():
    row = torch.zeros(1, 1 + 6)
    row[0, 0], row[0, 1 + 4] = 0.25, 0.75  # the token in row 1, column 1 of 2 x 3
    moved = spread(row, (2, 3), (4, 6), 1)
    places = moved[0, 1:].view(4, 6)
    assert moved[0, 0] == 0.25
    assert torch.allclose(places[2:, 2:4], torch.full((2, 2), 0.75 / 4))
    assert places.sum() == pytest.approx(0.75)
    assert torch.allclose(overlap(3, 7).sum(1), torch.ones(3))


def test_tokens_that_were_left_out_get_nothing():
    tokens = Tokens(torch.ones(1, 3, 2), (2, 2), 1, torch.tensor([[3, 0]]))
    row = rollout.in_place(torch.tensor([[0.5, 0.2, 0.3]]), Features(tokens).tokens)
    assert row.tolist() == [pytest.approx([0.5, 0.3, 0.0, 0.0, 0.2])]
