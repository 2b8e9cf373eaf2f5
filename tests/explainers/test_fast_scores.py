"""Masked images are scored in bf16 where that is faithful, else in float32, and no image is forwarded in vain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from questions import ask, pictures

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.explainers import fast_scores
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.explanation_page import build_page
from vitrail.explainers.fast_scores import (
    FastScores,
    Precision,
    ScoringNetwork,
    precision_line,
    relative_error,
)
from vitrail.explainers.masked_images import MaskedImages
from vitrail.explainers.occlusion import Occlusion, OcclusionSettings
from vitrail.infer.predictor import Predictor
from vitrail.models.vit import ViTConfig

GRID = ViTConfig(image=32, patch=2, width=24, depth=2, heads=3)
"""A grid of 16 × 16 patches, as a ViT-S/14 has at 224 px."""


@pytest.fixture(autouse=True)
def bf16_everywhere(monkeypatch):
    """Every device computes bf16; the check of the scores is the real one."""
    monkeypatch.setattr(fast_scores, "fast_bf16", lambda device: True)


def with_fast(subject):
    return subject.in_network(subject.network, FastScores(ScoringNetwork(subject.network, subject.task)))


class Counter:
    """Counts the images that reach any encoder."""

    def __init__(self, monkeypatch, encoder):
        self.images = 0
        start = encoder.start

        def counted(module, images):
            self.images += len(images)
            return start(module, images)

        monkeypatch.setattr(encoder, "start", counted)


def test_a_faithful_network_is_scored_in_bf16_and_ranks_cells_alike():
    subject = with_fast(ask(GRID))
    image = pictures(subject, 1)
    exact = Occlusion()(ask(GRID), image)
    fast = Occlusion()(subject, image)
    (precision,) = subject.fast.precisions
    assert precision.name == "bf16", precision
    assert 0 < precision.off <= fast_scores.LIMIT
    assert not torch.equal(fast, exact)
    ranks = [one.flatten().argsort().argsort().double() for one in (fast, exact)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.98


def blind(subject):
    """Return the subject with tokens of which bf16 rounds the image away: a large constant, and little of the image."""
    for name, parameter in subject.network.encoder.named_parameters():
        if name.startswith("embed.project"):
            parameter.mul_(1e-2) if parameter.ndim > 1 else parameter.mul_(1e3)
    return subject


def test_a_network_that_bf16_spoils_is_scored_in_float32():
    plain = blind(ask(GRID))
    subject = with_fast(plain)
    image = pictures(subject, 1)
    torch.testing.assert_close(Occlusion()(subject, image), Occlusion()(plain, image), rtol=0, atol=1e-6)
    (precision,) = subject.fast.precisions
    assert precision.name == "float32"
    assert precision.off > fast_scores.LIMIT
    assert "bf16 differs by" in precision_line([precision])


def test_what_cannot_be_bf16_is_said(monkeypatch):
    monkeypatch.setattr(fast_scores, "fast_bf16", lambda device: False)
    subject = with_fast(ask(GRID))
    Occlusion()(subject, pictures(subject, 1))
    line = precision_line(subject.fast.precisions)
    assert line == "Masked images were scored in float32: this device has no fast bf16."
    other = ask(GRID)
    monkeypatch.setattr(type(other.task), "inputs", ("images", "clicks"))
    assert "more than images" in ScoringNetwork(other.network, other.task).obstacle


def test_another_class_needs_no_forward_pass(monkeypatch):
    subject = with_fast(ask(GRID))
    image = pictures(subject, 1)
    counter = Counter(monkeypatch, type(subject.network.encoder))
    Occlusion()(subject, image)
    assert counter.images == 15 * 15 + 1 + fast_scores.PROBES
    other = subject.task.focus(subject.prediction, "b")
    seen = Occlusion()(subject.__class__(subject.network, subject.task, other, "b", subject.fast), image)
    assert counter.images == 15 * 15 + 1 + fast_scores.PROBES
    alone = with_fast(ask(GRID))
    alone = alone.__class__(alone.network, alone.task, other, "b", alone.fast)
    torch.testing.assert_close(seen, Occlusion()(alone, image), rtol=0, atol=0)


def test_outputs_too_large_to_keep_are_computed_again(monkeypatch):
    monkeypatch.setattr(fast_scores, "HELD", 0)
    subject = with_fast(ask(GRID))
    image = pictures(subject, 1)
    counter = Counter(monkeypatch, type(subject.network.encoder))
    first = Occlusion()(subject, image)
    count = counter.images
    torch.testing.assert_close(Occlusion()(subject, image), first, rtol=0, atol=1e-5)
    assert count < counter.images <= 2 * count


@pytest.mark.parametrize("stride", [0, 3])
def test_a_stride_leaves_no_cell_out(stride):
    with pytest.raises(SettingError, match="stride"):
        OcclusionSettings(window=2, stride=stride)


def test_squares_side_by_side_cover_every_cell_once():
    subject = ask(ViTConfig(image=(10, 14), patch=2, width=24, depth=2, heads=3))
    image = pictures(subject, 1)
    coarse = Occlusion(OcclusionSettings(window=2, stride=2))(subject, image)[0]
    assert coarse.shape == (5, 7)
    assert torch.equal(coarse[0:2, 2:4], coarse[0, 2].expand(2, 2))
    assert len(coarse.unique()) == 3 * 4
    assert Occlusion().coarse((14, 14)).settings == OcclusionSettings(window=3, stride=3)
    assert Occlusion().coarse((8, 8)).settings == OcclusionSettings()


def test_an_offset_is_no_error():
    scores = torch.arange(6.0)
    assert relative_error(scores + 3, scores, scores) == 0
    assert relative_error(scores * 1.1, scores, scores) == pytest.approx(0.1)
    assert relative_error(scores * float("nan"), scores, scores) == float("inf")
    assert relative_error(scores, torch.ones(6), torch.ones(6)) == float("inf")


def test_the_line_tells_the_worst_of_each_purpose():
    precisions = [Precision("occlusion", "bf16", f"bf16 differs by {off}%", off) for off in (1, 7, 3)]
    line = precision_line([*precisions, Precision("curves", "float32", "why")])
    assert (
        line
        == "How masked images were scored: occlusion in bf16: bf16 differs by 7%; curves in float32: why."
    )
    assert precision_line([]) == ""


def test_images_with_masks_show_their_fills():
    image, fills = torch.ones(3, 4, 4), torch.stack([torch.full((3, 4, 4), value) for value in (5.0, 7.0)])
    masks = torch.eye(4).view(4, 2, 2)
    images = MaskedImages(image, masks, fills, torch.tensor([0, 1, 0, 1]), "test")
    (first, second) = images.batches(3)
    assert torch.equal(torch.cat([first, second]).amax((1, 2, 3)), torch.tensor([5.0, 7.0, 5.0, 7.0]))
    assert torch.equal(second[0, :, 2:, 2:], torch.full((3, 2, 2), 7.0))
    assert images.others(torch.tensor([0, 2])).tolist() == [1, 3]
    assert images.some(torch.tensor([1])).key() != images.some(torch.tensor([3])).key()


@pytest.mark.parametrize(("pool", "bf16"), [("cls", False), ("mean", True)])
def test_a_page_of_a_grid_of_16_forwards_600_images_at_most(pool, bf16, model_file, monkeypatch):
    monkeypatch.setattr(fast_scores, "fast_bf16", lambda device: bf16)
    subject = ask(GRID, labels="abcd", pool=pool)
    steps = Preprocess(size=(32, 32))
    predictor = Predictor(model_file("tiny", subject.network, subject.task, steps))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    counter = Counter(monkeypatch, type(predictor.network.encoder))
    page = build_page(ImageExplainer(predictor, picture), "noise.png")
    tested = [one.method for one in page.explanations if one.faithful]
    assert tested == ["rollout", "relevance", *(["gradcam"] if pool == "mean" else []), "occlusion"]
    assert len(page.explanations) == len(tested) + 2
    assert 500 < counter.images <= 600
    assert "asked images were scored" in page.html
    drawn = [part.split('"')[0] for part in page.html.split("data:image/jpeg;base64,")[1:]]
    assert len(set(drawn)) == len(drawn) == len(page.explanations) + 1
