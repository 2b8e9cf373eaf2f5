"""The figures of the ViT paper, on the official network: golden vit_analysis, through a converted .npz."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitrail.explainers.network_analysis import attention_distance, filters, position_similarity
from vitrail.explainers.rollout import RolloutSettings, follow, on_grid, recorded
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import build
from vitrail.models.vit import ViTConfig
from vitrail.weights.rules import load
from vitrail.weights.tables import google


@pytest.fixture(scope="module")
def official(shared):
    config = ViTConfig(image=64, width=96, depth=3, heads=3, gelu="tanh")
    with np.load(shared("goldens/vit_flax_token.npz")) as file:
        source = {key: torch.from_numpy(file[key]) for key in file.files}
    encoder = build(config).eval().requires_grad_(False)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(load(google.vit(), google.renamed(source), shapes).encoder)
    images = load_file(shared("goldens/vit_flax_token.io.safetensors"))["input"]
    return encoder, images, load_file(shared("goldens/vit_analysis.io.safetensors"))


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=1e-4)


def test_attention_and_rollout(official):
    encoder, images, golden = official
    recorder = Recorder()
    features = encoder(images, record=recorder)
    close(torch.stack([one.weights for one in recorder.maps]), golden["attention"])
    row = torch.eye(17)[:1].expand(2, -1)
    for skip, name in ((True, "rollout_with_identity"), (False, "rollout_plain")):
        layers = recorded(recorder.maps, RolloutSettings(skip=skip))
        close(on_grid(follow(layers, row, features)), golden[name])


@pytest.mark.parametrize(
    ("whole", "name"),
    [(False, "distance_px_cls_dropped"), (True, "distance_px_cls_dropped_renormalised")],
)
def test_attention_distance(official, whole, name):
    encoder, images, golden = official
    found = attention_distance(encoder, [images], whole=whole)
    close(torch.tensor([reach.heads for reach in found]), golden[name])
    one_by_one = attention_distance(encoder, images[:, None], whole=whole)
    close(torch.tensor([reach.heads for reach in one_by_one]), golden[name])


def test_even_attention_on_the_papers_grid():
    """116.5 px on 14 x 14 patches of 16, the line of the figure."""
    from vitrail.models.factory import create_encoder

    encoder = create_encoder("vit_ti16").eval()
    found = attention_distance(encoder, [torch.zeros(1, 3, 224, 224)])
    centres = 16 * torch.stack(torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij"), -1)
    apart = torch.cdist(centres.flatten(0, 1), centres.flatten(0, 1))
    assert found[0].uniform == pytest.approx(float(apart.mean()), abs=1e-3)
    assert found[0].uniform == pytest.approx(116.5, abs=0.05)


def test_positions_and_filters(official):
    encoder, _, golden = official
    close(position_similarity(encoder), golden["pos_similarity"])
    found = filters(encoder)
    expected = golden["filter_pca_components_hwc"].double()
    signs = (found.components * expected).sum((1, 2, 3)).sign()
    close(found.components * signs[:, None, None, None], expected)
    ratio = found.variance / golden["filter_pca_explained_variance"].double()
    torch.testing.assert_close(ratio, torch.ones(28).double(), rtol=1e-3, atol=0)
