"""Rollout and relevance of merged tokens against whole matrices over the tokens that are left."""

from __future__ import annotations

import base64

import pytest
import torch
import torch.nn.functional as F
from questions import ask, pictures
from torch import nn

from vitrail.explainers import attention_viewer, rollout, streaming
from vitrail.explainers.attention_maps import looks_of
from vitrail.explainers.relevance import Relevance
from vitrail.explainers.rollout import Rollout, RolloutSettings, follow, on_grid, start
from vitrail.layers.elastic import set_merge
from vitrail.layers.heads import NO_INPUTS, DistilledHead, Head
from vitrail.layers.sdpa import Recorder
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.vit import ViTConfig

SMALL = {"image": (28, 35), "patch": 7, "channels": 5, "width": 33, "depth": 4, "heads": 3}


class OnePatchHead(Head):
    """Classes of one patch of (1, 2), as if a pixel of a mask was asked for."""

    def __init__(self, spec, classes):
        super().__init__()
        self.linear = nn.Linear(spec.width, classes)

    def forward(self, features, inputs=NO_INPUTS):
        return {"logits": self.linear(features.tokens.map()[:, :, 1, 2])}


ASKED = {
    "cls": (ViTConfig(**SMALL), {}),
    "mean": (ViTConfig(**SMALL, prefix=()), {"pool": "mean"}),
    "cls_mean": (ViTConfig(**SMALL), {"pool": "cls_mean"}),
    "attention": (ViTConfig(**SMALL), {"pool": "attention"}),
    "registers-mean": (DinoV2Config(**SMALL, registers=2), {"pool": "mean"}),
    "one-patch": (ViTConfig(**SMALL), {"head": OnePatchHead}),
    "distilled": (DeiTConfig(**SMALL, prefix=("cls", "dist")), {"head": DistilledHead}),
}


@pytest.fixture(params=ASKED)
def merged(request):
    """A question to a network that merges 3 pairs of its 20 patches in each block."""
    config, read = ASKED[request.param]
    subject = ask(config, **read)
    set_merge(subject.network, 3)
    return subject, pictures(subject)


def merges(maps):
    """Return for each block the matrix that made its input tokens of those of the block before: (b, after, before).

    M[c, i] = s_i / S_c: a token is the mean of the patches that it stands for.
    """
    b, n = len(maps[1].source), maps[0].size[0]
    before, found = torch.arange(n).expand(b, n), []
    for one in maps:
        now = before if one.source is None else one.source
        matrix = torch.zeros(b, int(now.max()) + 1, int(before.max()) + 1, dtype=torch.double)
        for image in range(b):
            for old, new in zip(before[image].tolist(), now[image].tolist(), strict=True):
                matrix[image, new, old] += 1  # once for each patch of the old token
        found.append(matrix / matrix.sum(-1, keepdim=True))
        before = now
    return found, before


def spread_out(product, source):
    """Return rows for all tokens: those that were merged have the same one: (b, m, n) -> (b, n, n)."""
    return torch.stack([rows[place] for rows, place in zip(product, source, strict=True)])


def rolled(subject, images, fuse, skip=True):
    """Return the product of all layers over the tokens that are left, for every original token: (b, n, n)."""
    record = Recorder()
    subject.network.encoder(images, record=record)
    steps, source = merges(record.maps)
    product = torch.eye(record.maps[0].size[0]).double().expand(len(images), -1, -1)
    for one, step in zip(record.maps, steps, strict=True):
        mixed = fuse(one.weights)[:, 0].double()
        product = step @ product
        product = 0.5 * mixed @ product + 0.5 * product if skip else mixed @ product
    return spread_out(product, source)


@pytest.mark.parametrize("at_once", [40, 2_000_000])
@pytest.mark.parametrize(
    "settings",
    [
        RolloutSettings(),
        RolloutSettings(skip=False),
        RolloutSettings(heads="max", discard=0.3),
        RolloutSettings(heads="min"),
    ],
)
def test_rollout(monkeypatch, merged, settings, at_once):
    monkeypatch.setattr(streaming, "AT_ONCE", at_once)
    subject, images = merged
    product = rolled(subject, images, settings.fuse, settings.skip)
    prefix = len(subject.spec.prefix)
    reads_class = subject.network.head.from_prefix
    expected = (product[:, 0] if reads_class else product[:, prefix:].mean(1))[:, prefix:].float()
    found = Rollout(settings)(subject, images)
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-6)
    with torch.inference_mode():
        features = subject.network.encoder(images)
        layers = rollout.dense(subject, images, settings)
        dense = on_grid(follow(layers, start(subject, features), features))
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-6)


def test_relevance(merged):
    """Eqs. 5, 6, 8 and 9 of arXiv:2103.15679, where R is multiplied with the mean of the patches that merge."""
    subject, images = merged
    record = Recorder()
    seen = subject.look(images.clone().requires_grad_(), record)
    wanted = [*(one.weights for one in record.maps), seen.features.tokens.x]
    *gradients, at_tokens = torch.autograd.grad(seen.score.sum(), wanted)
    steps, source = merges(record.maps)
    own = torch.eye(record.maps[0].size[0]).double().expand(len(images), -1, -1)
    gathered = torch.zeros_like(own)  # R̂ = R - I
    for one, gradient, step in zip(record.maps, gradients, steps, strict=True):
        own, gathered = step @ own, step @ gathered
        share = (gradient * one.weights).clamp(min=0).mean(1).double()
        gathered = gathered + share @ (gathered + own)
    own, gathered = spread_out(own, source), spread_out(gathered, source)
    carried = (at_tokens * seen.features.tokens.x).sum(-1).detach()
    read = torch.where((carried > 0).any(1, keepdim=True), carried.clamp(min=0), carried.abs())
    read = (read / read.sum(1, keepdim=True)).double()
    prefix = len(subject.spec.prefix)
    if read[:, prefix:].any():
        gathered = gathered / gathered.sum(-1, keepdim=True).clamp(min=1e-30)
    expected = torch.einsum("bn,bnm->bm", read, gathered + own)[:, prefix:].float()
    found = Relevance()(subject, images)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-5, atol=1e-7)
    assert (found >= 0).all()
    alone = torch.cat([Relevance()(subject, one[None]) for one in images])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-7)


def test_attention_of_a_token(merged):
    subject, images = merged
    record = Recorder()
    subject.network.encoder(images, record=record)
    prefix, grid = len(subject.spec.prefix), (4, 5)
    for query, row in (("2,3", prefix + 7), ("4,5", prefix + 19)):
        for looked, one in zip(looks_of(subject, images, query), record.maps, strict=True):
            expected = one.dense()[:, :, row, prefix:].view(2, 3, *grid)
            torch.testing.assert_close(looked, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("at_once", [40, 2_000_000])
@pytest.mark.parametrize("budget", [10**9, 12 * 4 * 8**2], ids=["patches", "cells"])
def test_the_sliders_show_merged_tokens_in_all_their_places(monkeypatch, merged, budget, at_once):
    monkeypatch.setattr(attention_viewer, "BUDGET", budget)
    monkeypatch.setattr(streaming, "AT_ONCE", at_once)
    subject, images = merged
    record = Recorder()
    subject.network.encoder(images[:1], record=record)
    data = attention_viewer.hover_data(subject, images[:1])
    for layer, one in zip(data["layers"], record.maps, strict=True):
        expected, grid = _in_cells(one.dense()[0], one.prefix, 1 if budget == 10**9 else 2)
        assert (layer["rows"], layer["cols"]) == grid
        found = torch.frombuffer(bytearray(base64.b64decode(layer["data"])), dtype=torch.uint8).float()
        tops = torch.tensor(layer["tops"])[..., None] / 100
        found = found.view(layer["heads"], -1, grid[0] * grid[1]) / 255 * tops
        torch.testing.assert_close(found, expected, rtol=0, atol=float(tops.max()) / 400 + 1e-4)


def _in_cells(dense, prefix, step):
    """Return the mean over queries and the sum over keys of cells of step² patches, and their grid."""
    place = torch.arange(4)[:, None] // step * -(-5 // step) + torch.arange(5) // step
    rows, cols = -(-4 // step), -(-5 // step)
    cell = F.one_hot(place.flatten(), rows * cols).float()
    keys = dense[:, :, prefix:] @ cell
    queries = (cell / cell.sum(0)).T @ keys[:, prefix:]
    return torch.cat([keys[:, :prefix], queries], 1), (rows, cols)
