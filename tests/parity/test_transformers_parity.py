"""DeiT and Swin of transformers through the shipped tables: equal outputs, and every tensor back bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    SwinConfig,
    SwinForImageClassification,
)
from transformers.utils import logging

from vitrail.layers.heads import DistilledHead, LinearHead
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path

DEIT = {
    "hidden_size": 66, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 264,
    "image_size": 35, "patch_size": 7, "num_labels": 5, "layer_norm_eps": 1e-6,
}  # fmt: skip


def read(network: nn.Module, folder: Path) -> Pretrained:
    """Our reading of a file of transformers, after a check that we write the same file."""
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    found = from_path(folder)
    convert(folder, folder / "again.safetensors", to="huggingface")
    back, source = load_file(folder / "again.safetensors"), load_file(folder / "model.safetensors")
    bare = {key.removeprefix("deit.").removeprefix("swin."): value for key, value in source.items()}
    assert back.keys() == bare.keys()
    assert all(torch.equal(back[key], value) for key, value in bare.items())
    return found


@pytest.mark.parametrize("both", [True, False])
@torch.no_grad()
def test_deit(shaken, tmp_path: Path, both):
    kind = DeiTForImageClassificationWithTeacher if both else DeiTForImageClassification
    theirs = shaken(kind(DeiTConfig(**DEIT)))
    found = read(theirs, tmp_path)
    assert (found.config.family, found.config.prefix, found.config.heads) == ("deit", ("cls", "dist"), 3)
    encoder = found.build()
    head = DistilledHead(encoder.spec, 5) if both else LinearHead(encoder.spec, 5)
    head.load_state_dict(found.head)
    images = torch.randn(2, 3, 35, 35, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(head(encoder(images))["logits"], theirs(images).logits, rtol=0, atol=3e-6)


@pytest.mark.parametrize("absolute", [False, True])
@torch.no_grad()
def test_swin(shaken, tmp_path: Path, absolute):
    theirs = shaken(
        SwinForImageClassification(
            SwinConfig(
                image_size=48, patch_size=2, embed_dim=12, depths=[2, 3, 2], num_heads=[1, 2, 3], window_size=3,
                num_labels=5, use_absolute_embeddings=absolute,
            )
        )
    )  # fmt: skip
    found = read(theirs, tmp_path)
    assert (found.config.family, found.config.window) == ("swin", 3)
    encoder = found.build(image=48)
    head = LinearHead(encoder.spec, 5)
    head.load_state_dict(found.head)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(head(encoder(images))["logits"], theirs(images).logits, rtol=0, atol=5e-6)
