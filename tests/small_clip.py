"""A small CLIP with random numbers and the whole vocabulary, as transformers writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel


def small_clip(folder: Path) -> Path:
    """Write the network and its preprocessing into a folder; skip where the vocabulary of CLIP is missing."""
    pytest.importorskip("open_clip")
    pytest.importorskip("ftfy")
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    text = {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    network = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=20))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder)
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**sides).save_pretrained(folder)
    return folder
