"""Relevance against the paper's equations, restated with whole matrices."""

from __future__ import annotations

import pytest
import torch
from questions import ask, pictures

from vitrail.core.errors import SettingError
from vitrail.explainers import relevance
from vitrail.explainers.relevance import Relevance
from vitrail.layers.elastic import set_keep
from vitrail.layers.heads import DistilledHead
from vitrail.layers.sdpa import Recorder
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.vit import ViTConfig

SMALL = {"image": (21, 35), "patch": 7, "channels": 5, "width": 33, "depth": 3, "heads": 3}


def by_the_paper(subject, images):
    """Return R of eqs. 5 and 6 (b, n, n), and the rule (gradient · token)+ of every last token (b, n)."""
    recorder = Recorder()
    seen = subject.look(images.clone().requires_grad_(), recorder)
    wanted = [*(one.weights for one in recorder.maps), seen.features.tokens.x]
    *gradients, at_tokens = torch.autograd.grad(seen.score.sum(), wanted)
    n = recorder.maps[0].size[0]
    relevance = torch.eye(n).double().expand(len(images), n, n)  # of which 1 is taken away again below
    for one, gradient in zip(recorder.maps, gradients, strict=True):
        share = one._replace(weights=(gradient * one.weights).clamp(min=0)).dense().mean(1)
        relevance = relevance + share.double() @ relevance
    return relevance.detach(), (at_tokens * seen.features.tokens.x).sum(-1).detach()


def test_class_token():
    subject = ask(ViTConfig(**SMALL))
    images = pictures(subject)
    expected, _ = by_the_paper(subject, images)
    found = Relevance()(subject, images)
    assert found.shape == (2, 3, 5)
    torch.testing.assert_close(found.flatten(1), expected[:, 0, 1:].float(), rtol=1e-5, atol=1e-7)
    assert (found >= 0).all()


def test_another_class_has_another_map():
    subject = ask(ViTConfig(**SMALL))
    other = subject.task.focus(subject.prediction, "b")
    images = pictures(subject)
    twin = type(subject)(subject.network, subject.task, other, "b")
    assert not torch.allclose(Relevance()(subject, images), Relevance()(twin, images))


def test_mean_pooling_and_registers():
    config = DinoV2Config((21, 35), 7, 5, width=33, depth=3, heads=3, registers=2)
    subject = ask(config, pool="mean")
    images = pictures(subject)
    expected, carried = by_the_paper(subject, images)
    start = carried.clamp(min=0)
    assert not start[:, :3].any()  # the mean is of patches alone
    gathered = expected - torch.eye(18)
    whole = gathered / gathered.sum(-1, keepdim=True).clamp(min=1e-30) + torch.eye(18)  # eqs. 8 and 9
    rows = torch.einsum("bn,bnm->bm", (start / start.sum(1, keepdim=True)).double(), whole).float()
    torch.testing.assert_close(Relevance()(subject, images).flatten(1), rows[:, 3:], rtol=1e-5, atol=1e-7)


def test_distillation_token():
    subject = ask(DeiTConfig(**SMALL, prefix=("cls", "dist")), head=DistilledHead)
    images = pictures(subject)
    expected, carried = by_the_paper(subject, images)
    both = carried.clamp(min=0)
    assert both[:, :2].any()
    assert not both[:, 2:].any()
    both = torch.where(both.sum(1, keepdim=True) > 0, both, carried.abs())
    rows = torch.einsum("bn,bnm->bm", (both / both.sum(1, keepdim=True)).double(), expected).float()
    torch.testing.assert_close(Relevance()(subject, images).flatten(1), rows[:, 2:], rtol=1e-5, atol=1e-7)


def test_kept_tokens():
    subject = ask(ViTConfig(**{**SMALL, "depth": 4}))
    set_keep(subject.network, 0.5)
    images = pictures(subject)
    recorder = Recorder()
    seen = subject.look(images.clone().requires_grad_(), recorder)
    gradients = torch.autograd.grad(seen.score.sum(), [one.weights for one in recorder.maps])
    relevance = torch.eye(16).expand(2, 16, 16)
    for one, gradient in zip(recorder.maps, gradients, strict=True):
        relevance = (
            relevance
            + one._replace(weights=(gradient * one.weights).clamp(min=0)).dense().mean(1) @ relevance
        )
    found = Relevance()(subject, images)
    torch.testing.assert_close(found.flatten(1), relevance[:, 0, 1:].detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("repeat", [1, 2])
def test_one_picture_does_not_touch_another(repeat):
    subject = ask(ViTConfig(**SMALL))
    images = pictures(subject, 3)
    alone = torch.cat([Relevance()(subject, one[None]) for one in images])
    torch.testing.assert_close(Relevance()(subject, images), alone, rtol=1e-4, atol=1e-7)


def test_it_refuses_what_does_not_fit_into_memory(monkeypatch):
    subject = ask(ViTConfig(**SMALL))
    images = pictures(subject, 1)
    needed = 2 * 3 * 3 * 16 * 16 * 4  # weights and gradients: layers, heads, tokens, float32
    monkeypatch.setattr(relevance, "free_memory", lambda device: needed)
    Relevance()(subject, images)
    monkeypatch.setattr(relevance, "free_memory", lambda device: needed - 1)
    with pytest.raises(SettingError, match="3 layers with 16 tokens"):
        Relevance()(subject, images)
