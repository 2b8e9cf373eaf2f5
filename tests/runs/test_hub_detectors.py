"""Folders of transformers' detectors: their settings with those of the backbone, and how they are asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    DetrConfig,
    DetrImageProcessor,
    EomtConfig,
    EomtImageProcessor,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrImageProcessor,
)

from vitrail.data.preprocess import Preprocess
from vitrail.models.vit import ViTConfig
from vitrail.weights.conventions import labels_of, of_hub
from vitrail.weights.hub_folder import DEFAULTS, said_of, whole
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained

SHAPES = [(120, 160), (161, 119), (97, 201)]


def asked(processor: Any) -> tuple[Preprocess, list[str]]:
    """Return how weights with this processor are asked, and what is said of it."""
    stated = of_hub(processor.to_dict())
    found = Pretrained(
        "theirs", ViTConfig(image=64, patch=8, width=48, depth=1, heads=3), {}, {}, "huggingface", stated
    )
    return published_preprocess(found), list(deviations(found))


def smooth(seed: int, shape: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(70, 186, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def test_a_square_detector_is_asked_as_transformers_asks_it():
    processor = RfDetrImageProcessor(size={"height": 64, "width": 96})
    steps, said = asked(processor)
    assert not said
    std = torch.tensor(steps.std).view(3, 1, 1) * 255
    for seed, shape in enumerate(SHAPES):
        image = smooth(seed, shape)
        expected = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
        assert float(((steps.eval(image)[0] - expected).abs() * std).max()) < 1.5


def test_a_padded_image_is_the_same_but_for_the_place_of_the_ground():
    processor = EomtImageProcessor(size={"shortest_edge": 96, "longest_edge": 96}, do_pad=True)
    steps, said = asked(processor)
    assert (steps.fit, steps.size, steps.interpolation) == ("pad", (96, 96), "bilinear")
    assert said == [
        "the weights theirs: its authors add black below or at the right; here the mean colour is added on both sides"
    ]
    image = smooth(0, (120, 160))
    expected = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
    std = torch.tensor(steps.std).view(3, 1, 1) * 255
    assert float(((steps.eval(image)[0][:, 12:84] - expected[:, :72]).abs() * std).max()) < 1.5


@pytest.mark.parametrize(
    ("processor", "size", "words"),
    [
        (DetrImageProcessor(), (1056, 1056), "to 800 px, the long one to at most 1333; here the long side has 1056 px"),
        (
            EomtImageProcessor(size={"shortest_edge": 512, "longest_edge": None}, do_split_image=True),
            (512, 512),
            "its authors cut an image with a short side of 512 px into squares",
        ),
    ],
    ids=["detr", "eomt"],
)  # fmt: skip
def test_what_is_done_in_another_way_is_said(processor, size, words):
    steps, said = asked(processor)
    assert (steps.fit, steps.size) == ("pad", size)
    assert len(said) == 1
    assert words in said[0]


def test_old_folders_state_the_limit_beside_the_size():
    stated = of_hub({"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333,
                     "image_mean": [0.5] * 3, "image_std": [0.5] * 3})  # fmt: skip
    assert stated is not None
    assert (stated.image, stated.fit) == ((1056, 1056), "pad")


@pytest.mark.parametrize(
    "config", [RfDetrConfig(), DetrConfig(), EomtConfig()], ids=lambda one: one.model_type
)
def test_defaults_are_those_of_transformers(config):
    real, kind = config.to_dict(), config.model_type
    for name, value in DEFAULTS[kind].items():
        if name == "backbone_config":
            assert {key: real[name][key] for key in value} == value
        elif name != "backbone":
            assert real[name] == value, name
    if kind == "rf_detr":
        backbone = RfDetrDinov2Config().to_dict()
        assert {name: backbone[name] for name in DEFAULTS["rf_detr_dinov2"]} == DEFAULTS["rf_detr_dinov2"]


def test_what_does_not_follow_from_tensors_is_that_of_the_backbone():
    backbone = {"model_type": "rf_detr_dinov2", "num_attention_heads": 3, "image_size": 64}
    said = said_of(whole({"model_type": "rf_detr", "layer_norm_eps": 1e-5, "backbone_config": backbone}))
    assert (said.heads, said.sizes, said.gelu, said.norm_eps) == (3, ((64, 64),), "exact", 1e-6)
    assert said_of(whole({"model_type": "rf_detr"})).heads == 6
    assert said_of(whole({"model_type": "eomt", "num_attention_heads": 6})).sizes == ((640, 640),)
    assert said_of(whole({"model_type": "detr"})).heads == 8


def test_numbers_without_a_name_are_no_class():
    assert labels_of({"id2label": {"1": "person", "3": "car"}}) == ("N/A", "person", "N/A", "car")
    assert labels_of({"id2label": {"0": "LABEL_0"}}) == ()
    assert labels_of({"id2label": {"first": "a"}}) == ()
