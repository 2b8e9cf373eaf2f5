"""Every encoder of the catalog passes the explainers that its spec promises."""

from __future__ import annotations

import base64
from math import prod

import pytest
import torch
from test_encoders import TINY

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.explainers import attention_viewer
from vitrail.explainers.attention_maps import (
    Attention,
    AttentionSettings,
    looks_of,
    query_row,
    token_names,
)
from vitrail.explainers.methods import build_explainer, compatible_methods
from vitrail.explainers.network_analysis import look_inside
from vitrail.explainers.rollout import Rollout, RolloutSettings, dense, follow, on_grid, start
from vitrail.explainers.target import Subject, shuffled
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import build
from vitrail.runs.network import build_network, build_task
from vitrail.runs.run_network import ASK


@pytest.fixture(scope="module", params=TINY)
def case(request) -> tuple[Subject, torch.Tensor]:
    config, _ = TINY[request.param]
    torch.manual_seed(5)
    task = build_task("classify", ["a", "b", "c"], {})
    network = build_network(build(config), task).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    output = {"logits": torch.tensor([[0.1, 0.9, 0.2]])}
    prediction = task.decode(output, [None], ASK)[0]
    return Subject(network, task, prediction, request.param), torch.randn(1, *network.spec.shape(config.size))


@pytest.fixture
def seeing(case) -> tuple[Subject, torch.Tensor]:
    """A network whose attention can be recorded."""
    if case[0].spec.attention == "none":
        pytest.skip("this network attends to nothing")
    return case


def test_what_fits_gives_a_map_of_the_picture(case):
    subject, images = case
    assert "occlusion" in compatible_methods(subject.network)
    of_attention = {"rollout", "relevance", "attention"} & set(compatible_methods(subject.network))
    assert len(of_attention) == (0 if subject.spec.attention == "none" else 3)
    for method in compatible_methods(subject.network):
        found = build_explainer(method)(subject, images)
        assert found.ndim == (4 if subject.spec.frames else 3), method
        assert found.isfinite().all(), method
        assert found.any(), method
        if method != "occlusion":  # which knows what speaks against an answer, too
            assert (found >= 0).all(), method


def test_what_does_not_fit_is_refused():
    for method in catalog.EXPLAINERS:
        kind = catalog.load("explainer", method)
        assert kind.name == method
        assert kind(kind.Settings()).fits


def test_streamed_rollout_equals_the_recorded(seeing):
    subject, images = seeing
    with torch.inference_mode():
        features = subject.network.encoder(images)
        layers = dense(subject, images, RolloutSettings())
        whole = on_grid(follow(layers, start(subject, features), features))
    found = Rollout()(subject, images)
    torch.testing.assert_close(found, whole, rtol=0, atol=max(1e-6, subject.spec.tolerance))
    everything = float(found.sum() + _on_prefix(subject, images))
    if subject.spec.attention == "softmax":
        assert everything == pytest.approx(1.0, abs=1e-5)
    else:  # a token whose features are all 0 looks nowhere
        assert 0.5 < everything <= 1.0 + 1e-5


def _on_prefix(subject: Subject, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        features = subject.network.encoder(images)
        trail = follow(dense(subject, images, RolloutSettings()), start(subject, features), features)
    return trail.row[:, : trail.prefix].sum()


def test_every_layer_and_head_is_shown(seeing):
    subject, images = seeing
    looks = looks_of(subject, images)
    recorder = Recorder()
    with torch.no_grad():
        subject.network.encoder(images, record=recorder)
    assert len(looks) == len(recorder.maps) == subject.spec.blocks
    for shown, one in zip(looks, recorder.maps, strict=True):
        heads = one.weights.shape[1]
        assert shown.shape == (1, heads, *one.grid)
        if classes := subject.spec.prefix.count("cls"):
            silent = one.unasked(torch.ones(1, one.size[0]))[0, :classes].all()  # as in attention over time
            asking = slice(one.prefix, None) if silent else slice(classes)
            expected = one.dense()[0, :, asking, one.prefix :].mean(1)
            torch.testing.assert_close(shown.flatten(2)[0], expected, rtol=0, atol=1e-6)
    last = recorder.maps[-1]
    place = "1,2,1" if subject.spec.frames else "2,1"
    query = AttentionSettings(layer=len(looks), head=1, query=place)
    row = (
        last.prefix + last.grid[-1]
    )  # the second row's first patch, where the last layer is as coarse as the whole
    shown = Attention(query)(subject, images)[0]
    torch.testing.assert_close(shown.flatten(), last.dense()[0, 0, row, last.prefix :], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"layer": 99}, {"head": 99}, {"query": "99,1"}, {"query": "dog"}, {"layer": -1}]
)
def test_what_is_out_of_range_is_refused_by_name(seeing, wrong):
    subject, images = seeing
    with pytest.raises(SettingError, match="There is no"):
        Attention(AttentionSettings(**wrong))(subject, images)


def test_the_sliders_show_the_recorded_attention(seeing, monkeypatch):
    monkeypatch.setattr(attention_viewer, "BUDGET", 10**9)  # else large grids are put together into cells
    subject, images = seeing
    data = attention_viewer.hover_data(subject, images)
    recorder = Recorder()
    with torch.no_grad():
        subject.network.encoder(images, record=recorder)
    for layer, one in zip(data["layers"], recorder.maps, strict=True):
        expected = one.dense()[0][:, :, one.prefix :]
        assert (layer["rows"], layer["cols"]) == one.grid[-2:]
        assert layer.get("frames", 0) == subject.spec.frames
        found = torch.frombuffer(bytearray(base64.b64decode(layer["data"])), dtype=torch.uint8).float()
        tops = torch.tensor(layer["tops"])[..., None] / 100
        found = found.view(layer["heads"], -1, prod(one.grid)) / 255 * tops
        torch.testing.assert_close(found, expected, rtol=0, atol=float(tops.max()) / 400 + 1e-4)


def test_what_it_is(case):
    subject, images = case
    found = look_inside("it", subject.network.encoder, [images])
    assert len(found.reaches) == subject.spec.blocks
    diagonal = (images.shape[-2] ** 2 + images.shape[-1] ** 2) ** 0.5
    for reach in found.reaches:
        assert all(0 <= one < diagonal for one in (*reach.heads, reach.uniform))
    if found.filters is not None:
        rows = found.filters.components.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).double(), rtol=0, atol=1e-6)
    if found.places is not None:
        n = found.places.shape[0] * found.places.shape[1]
        torch.testing.assert_close(found.places.view(n, n).diag(), torch.ones(n).double())
    assert found.to_dict()
    assert found.lines()


def test_shuffled_weights_answer_otherwise(case):
    subject, images = case
    twin = shuffled(subject.network, 0)
    ours, theirs = (network({"images": images})["logits"] for network in (subject.network, twin))
    assert not torch.allclose(theirs, ours)
    for a, b in zip(twin.parameters(), subject.network.parameters(), strict=True):
        torch.testing.assert_close(a.sort().values.sum(), b.sort().values.sum(), rtol=1e-3, atol=1e-3)


def test_class_tokens_of_windows_have_names_of_their_own():
    assert token_names(("cls", "cls", "reg", "dist")) == ["cls1", "cls2", "reg1", "dist"]
    assert token_names(("cls", "reg")) == ["cls", "reg1"]
    assert query_row("", ("cls", "cls"), (1, 2)).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert query_row("cls2", ("cls", "cls"), (1, 2)).tolist() == [[0.0, 1.0, 0.0, 0.0]]
