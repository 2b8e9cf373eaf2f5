"""Networks of transformers that are read as timm's: the same numbers, classifier included, from the folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import logging

from vitrail.core.errors import WeightsError
from vitrail.layers.heads import LinearHead
from vitrail.models.factory import describe, rebuild
from vitrail.weights.hub_folder import DEFAULTS, DETECTORS, PAGES, THROUGH
from vitrail.weights.pretrained import from_path

COLUMN: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
WINDOWS: dict[str, Any] = {
    "image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip
CONVS: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}

CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "SigLIP": ("SiglipVisionModel", COLUMN, 32),
    "SigLIP, quick": (
        "SiglipVisionModel", {**COLUMN, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-3}, 32,
    ),
    "DINOv3": ("DINOv3ViTModel", {**COLUMN, "num_register_tokens": 3}, 32),
    "DINOv3, gated": (
        "DINOv3ViTModel",
        {**COLUMN, "num_register_tokens": 3, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False,
         "value_bias": False},
        32,
    ),
    "BEiT": (
        "BeitForImageClassification", {**COLUMN, "use_relative_position_bias": True, "layer_scale_init_value": 0.1}, 32,
    ),
    "BEiT, places": (
        "BeitForImageClassification",
        {**COLUMN, "use_absolute_position_embeddings": True, "use_shared_relative_position_bias": True,
         "layer_scale_init_value": 0.0, "use_mean_pooling": False},
        32,
    ),
    "Swinv2": ("Swinv2ForImageClassification", WINDOWS, 64),
    "Swinv2, small grids": (
        "Swinv2ForImageClassification", {**WINDOWS, "image_size": 32, "window_size": 8, "hidden_act": "relu"}, 32,
    ),
    "ResNet": ("ResNetForImageClassification", {"hidden_sizes": [64, 32, 48, 64], "depths": [1, 2, 1, 1],
                                               "layer_type": "basic"}, 64),
    "ResNet, bottlenecks": ("ResNetForImageClassification", {"hidden_sizes": [32, 48, 64, 80],
                                                            "depths": [1, 1, 2, 1]}, 64),
    "ConvNeXt": ("ConvNextForImageClassification", {**CONVS, "layer_norm_eps": 1e-2}, 64),
    "ConvNeXt V2": ("ConvNextV2ForImageClassification", CONVS, 64),
}  # fmt: skip


def written(kind: str, settings: dict[str, Any], shaken: Any, folder: Path) -> torch.nn.Module:
    logging.disable_progress_bar()
    network = getattr(transformers, kind)
    labels = {"num_labels": 5} if kind.endswith("Classification") else {}
    theirs: torch.nn.Module = shaken(network(network.config_class(**settings, **labels)))
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_same_numbers(shaken, tmp_path, case):
    kind, settings, side = CASES[case]
    theirs = written(kind, settings, shaken, tmp_path)
    found = from_path(tmp_path)
    assert found.config.family == "timm"
    encoder = found.build()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    ours, out = encoder(images), theirs(pixel_values=images)
    if kind.endswith("Classification"):
        head = LinearHead(encoder.spec, 5, pool=found.pool)
        head.load_state_dict(found.head)
        torch.testing.assert_close(head(ours)["logits"], out.logits, rtol=0, atol=2e-5)
    else:
        torch.testing.assert_close(ours.pooled, out.pooler_output, rtol=0, atol=2e-5)


@torch.no_grad()
def test_its_settings_go_into_a_model_file_and_a_recipe_and_come_back(shaken, tmp_path):
    written(*CASES["SigLIP, quick"][:2], shaken, tmp_path)
    found = from_path(tmp_path)
    encoder = found.build()
    again = rebuild(json.loads(json.dumps(describe(encoder)))).eval()
    assert again.config == encoder.config
    again.load_state_dict(encoder.state_dict())
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(again(images).pooled, encoder(images).pooled, rtol=0, atol=0)
    assert from_path(tmp_path, found.network_name).config == found.config  # as a recipe names it
    with pytest.raises(WeightsError, match=r"'siglip_vision_model'.*leave --model"):
        from_path(tmp_path, "resnet50")


@torch.no_grad()
def test_the_tower_that_reads_pictures_is_taken(shaken, tmp_path):
    network = transformers.SiglipModel
    text = {**COLUMN, "vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    theirs = shaken(network(network.config_class(vision_config=COLUMN, text_config=text)))
    theirs.save_pretrained(tmp_path)
    found = from_path(tmp_path)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    tower = theirs.vision_model(pixel_values=images)
    torch.testing.assert_close(found.build()(images).pooled, tower.pooler_output, rtol=0, atol=2e-5)
    said = " ".join(found.assumed)
    assert "left aside: logit_" in said
    assert "text_model" in said


def test_a_config_that_leaves_out_what_transformers_takes(shaken, tmp_path):
    written("SiglipVisionModel", COLUMN, shaken, tmp_path)
    whole = from_path(tmp_path).config
    said = json.loads((tmp_path / "config.json").read_text())
    for name in ("hidden_act", "layer_norm_eps", "num_channels"):
        said.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert from_path(tmp_path).config == whole


def test_what_is_taken_for_granted_is_what_transformers_takes():
    mapping = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    assert DEFAULTS.keys() == {
        *PAGES,
        *THROUGH,
        "rf_detr_dinov2",
    }  # the backbone of a detector has a type of its own
    for kind, values in DEFAULTS.items():
        if kind in DETECTORS:  # whose parts are compared in tests/runs/test_hub_detectors.py
            continue
        theirs = mapping[kind]().to_dict()
        assert {name: theirs[name] for name in values} == values, kind


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        ("SegformerModel", {}, r"'segformer' \(SegformerModel\) is not read.*convnext"),
        ("BeitModel", {**COLUMN, "hidden_act": "relu"}, "hidden_act = 'relu', and timm's network 'gelu'"),
        ("ResNetModel", {"downsample_in_bottleneck": True}, "downsample_in_bottleneck = True"),
        ("ViTModel", {**COLUMN, "hidden_act": "relu"}, "activation 'relu', which no network here has"),
        ("Dinov2Model", {**COLUMN, "mlp_ratio": 2, "hidden_act": "gelu_new"}, "a dinov2 with the tanh GELU"),
    ],
)  # fmt: skip
def test_what_computes_otherwise_is_refused_by_its_own_name(shaken, tmp_path, kind, settings, word):
    written(kind, settings, shaken, tmp_path)
    with pytest.raises(WeightsError, match=word):
        from_path(tmp_path)


@pytest.mark.parametrize("case", ["SigLIP", "DINOv3", "BEiT", "Swinv2", "ResNet", "ConvNeXt"])
def test_without_its_config_it_is_named_and_so_is_what_is_missing(shaken, tmp_path, case):
    written(*CASES[case][:2], shaken, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=rf"holds Hugging Face's {case}; its config.json is missing"):
        from_path(tmp_path)
    with pytest.raises(WeightsError, match=rf"holds Hugging Face's {case}"):
        from_path(tmp_path, "vit_b16")
