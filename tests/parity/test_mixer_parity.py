"""MLP-Mixer against timm's network, Google's layout both ways, and the sizes of timm's presets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vitrail.core.errors import WeightsError
from vitrail.layers.heads import LinearHead
from vitrail.models.factory import create_encoder
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import from_path


def theirs() -> torch.nn.Module:
    # timm's ratios are of the width: 24 hidden numbers over places, 72 over channels.
    return timm.models.MlpMixer(
        img_size=35, patch_size=7, embed_dim=48, num_blocks=3, mlp_ratio=(0.5, 1.5), num_classes=7
    )


def test_timm(shaken, tmp_path: Path):
    network = shaken(theirs())
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors")
    assert (found.config.family, found.config.image, found.config.places) == ("mixer", 35, 24)
    encoder, head = found.build(), LinearHead(found.build().spec, 7)
    head.load_state_dict(found.head)
    images = torch.randn(2, 3, 35, 35, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(head(encoder(images))["logits"], network(images), rtol=0, atol=3e-6)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="timm")
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in network.state_dict().items())


def test_google_layout_there_and_back(shaken, tmp_path: Path):
    network = shaken(theirs())
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.npz", to="google")
    with np.load(tmp_path / "b.npz") as file:
        assert file["MixerBlock_2/token_mixing/Dense_0/kernel"].shape == (25, 24)
        assert file["stem/kernel"].shape == (7, 7, 3, 48)
        assert file["pre_head_layer_norm/scale"].shape == (48,)
    found = from_path(tmp_path / "b.npz")
    assert (found.config.gelu, found.source) == ("tanh", "google")
    convert(tmp_path / "b.npz", tmp_path / "c.safetensors", to="timm")
    back = load_file(tmp_path / "c.safetensors")
    assert all(torch.equal(back[key], value) for key, value in network.state_dict().items())


def test_another_size_is_refused(shaken, tmp_path: Path):
    save_file(shaken(theirs()).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="own image size"):
        from_path(tmp_path / "a.safetensors").build(image=42)


@pytest.mark.parametrize("name", ["s32", "s16", "b32", "b16", "l32", "l16"])
def test_presets_have_the_parameters_of_timm(name):
    with torch.device("meta"):
        other = timm.create_model(f"mixer_{name}_224", num_classes=0)
        encoder = create_encoder(f"mixer_{name}_224.goog_in21k")
    assert encoder.config.family == "mixer"
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in other.parameters())
