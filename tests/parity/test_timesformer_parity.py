"""TimeSformer against its official outputs, and against transformers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vitrail.layers.heads import LinearHead
from vitrail.models.factory import build
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.weights.rules import load, save
from vitrail.weights.tables import timesformer as tables

SMALL = {"image": 48, "patch": 16, "frames": 4, "width": 96, "depth": 3, "heads": 3}


def close(ours, theirs, atol=2e-5):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_official_outputs(shared, attention):
    source = load_file(shared(f"goldens/timesformer_{attention}_space_time.safetensors"))
    golden = load_file(shared(f"goldens/timesformer_{attention}_space_time.io.safetensors"))
    encoder = build(TimeSformerConfig(**SMALL, attention=attention)).eval()
    head = LinearHead(encoder.spec, 10)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    loaded = load(tables.OFFICIAL, source, shapes)
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    close(head.vectors(encoder(golden["input"].transpose(1, 2))), golden["features"])
    for case in ("", "_6frames", "_64x48"):
        features = encoder(golden[f"input{case}"].transpose(1, 2))
        close(head(features)["logits"], golden[f"logits{case}"])
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
