"""create_model: from scratch, and from weights with or without their classifier."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from vitrail.core.errors import WeightsError
from vitrail.runs.network import create_model


def test_a_timm_checkpoint_answers_as_in_timm(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64).eval()
    torch.nn.init.normal_(theirs.head.weight, std=0.1)
    save_file(theirs.state_dict(), tmp_path / "some.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with pytest.warns(UserWarning, match="made for 64 x 64 px, as a square has it"):
        ours = create_model("vit_ti16", pretrained=str(tmp_path / "some.safetensors"), num_classes=7)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=2e-5)
        with pytest.warns(UserWarning, match="made for 64 x 64 px"):
            other = create_model("vit_ti16", pretrained=str(tmp_path / "some.safetensors"), num_classes=5)
        assert other(images).shape == (2, 5)
        features = ours.encoder(images)
    assert features.tokens.x.shape == (2, 17, 192)


def test_from_scratch_takes_timms_name_other_channels_and_shapes():
    network = create_model("vit_tiny_patch16_224", num_classes=3, image=(48, 80), channels=5)
    assert network(torch.randn(2, 5, 48, 80)).shape == (2, 3)


def test_weights_that_cannot_be_had_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError):
        create_model("vit_s16", pretrained=True, num_classes=2)
