"""The attention maps of TimeSformer: groups of one place over time, and of one frame, against plain matrices."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from vitrail.explainers import streaming
from vitrail.explainers.rollout import Rollout
from vitrail.explainers.target import Subject
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import build
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.runs.network import build_network, build_task
from vitrail.runs.run_network import ASK

T, GRID = 3, (3, 5)
CELLS = GRID[0] * GRID[1]


@pytest.fixture(params=["divided", "joint", "space"])
def subject(request) -> Subject:
    config = TimeSformerConfig((21, 35), 7, 5, T, 33, depth=2, heads=3, hidden=41, attention=request.param)
    torch.manual_seed(5)
    task = build_task("classify", ["a", "b", "c"], {})
    network = build_network(build(config), task).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    prediction = task.decode({"logits": torch.tensor([[0.1, 0.9, 0.2]])}, [None], ASK)[0]
    return Subject(network, task, prediction, request.param)


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(2, T, 5, 21, 35, generator=torch.Generator().manual_seed(1))


def recorded(subject, clips):
    record = Recorder()
    subject.network.encoder(clips, record=record)
    return record.maps


def test_the_matrix_times_the_values_is_the_output(subject, clips):
    """One class token is a query of every frame, and its row is the mean; over time it has no row."""
    encoder = subject.network.encoder
    calls = []
    for block in encoder.blocks:
        block.attention.register_forward_hook(
            lambda module, given, out: calls.append((module, given[0], out))
        )
    maps = recorded(subject, clips)
    over_space = maps[1::2] if encoder.config.attention == "divided" else maps
    assert len(calls) == len(over_space) == 2
    for (module, tokens, out), one in zip(calls, over_space, strict=True):
        values = rearrange(module.qkv(tokens.x), "b n (three h e) -> three b h n e", three=3, h=3)[2]
        mixed = module.out(rearrange(one.dense() @ values, "b h n e -> b n (h e)"))
        torch.testing.assert_close(mixed, out, rtol=0, atol=2e-6)


def test_products_with_vectors_are_those_of_the_matrix(subject, clips):
    for one in recorded(subject, clips):
        matrix, n = one.dense().mean(1), one.size[0]
        vector = torch.randn(2, n, generator=torch.Generator().manual_seed(2))
        left = (vector[:, None] @ matrix)[:, 0]
        right = (matrix @ vector[..., None])[..., 0]
        torch.testing.assert_close(one.left_multiply(vector), left, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.right_multiply(vector), right, rtol=0, atol=1e-6)


def test_who_attends_to_whom(subject, clips):
    kind, maps = subject.network.encoder.config.attention, recorded(subject, clips)
    frame = torch.arange(T).repeat_interleave(CELLS)
    place = torch.arange(CELLS).repeat(T)
    same_frame, same_place = frame[:, None] == frame, place[:, None] == place
    assert [one.grid for one in maps] == [(T, *GRID)] * len(maps)
    for turn, one in enumerate(maps):
        patches = one.dense()[:, :, one.prefix :, one.prefix :] > 0
        wanted = {"joint": torch.ones_like(same_frame), "space": same_frame}.get(
            kind, same_frame if turn % 2 else same_place
        )
        assert torch.equal(patches, wanted.expand_as(patches))
    if kind == "divided":
        assert not maps[0].dense()[:, :, 0].any()
        assert not maps[0].dense()[:, :, :, 0].any()
        assert torch.equal(maps[0].unasked(torch.ones(2, 46)), torch.eye(46)[:1].expand(2, -1))
    if kind == "space":
        assert maps[0].prefix == T
        own = maps[0].dense()[:, :, :T, T:] > 0
        assert torch.equal(own, (torch.arange(T)[:, None] == frame).expand_as(own))


@pytest.mark.parametrize("at_once", [200, 1_000_000])
def test_rollout_is_the_product_of_the_matrices(subject, clips, monkeypatch, at_once):
    """Over time the class token passes unchanged: the row of the identity, not half of it."""
    monkeypatch.setattr(streaming, "AT_ONCE", at_once)
    maps = recorded(subject, clips)
    eye, row = torch.eye(maps[0].size[0]), torch.zeros(2, 1, maps[0].size[0])
    row[..., : maps[0].prefix] = 1 / maps[0].prefix
    for one in reversed(maps):
        asked = one.dense().mean(1)
        asked = asked + torch.diag_embed(1 - asked.sum(-1).round())
        row = row @ (0.5 * eye + 0.5 * asked)
    wanted = row[:, 0, maps[0].prefix :].view(2, T, *GRID)
    torch.testing.assert_close(Rollout()(subject, clips), wanted, rtol=0, atol=1e-6)


def test_frames_are_independent_without_attention_over_time(subject, clips):
    encoder = subject.network.encoder
    other = clips.clone()
    other[:, 1] += 1
    before, after = (encoder(x).tokens.map()[:, :, 0] for x in (clips, other))
    if encoder.config.attention == "space":
        assert torch.equal(before, after)
    else:
        assert not torch.allclose(before, after, atol=1e-4)
