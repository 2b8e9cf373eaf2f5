"""Explanations of clips: strips, animations and the page, of a TimeSformer and of networks over frames."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("av", reason="PyAV is not installed")

from vitrail.core.errors import RunError
from vitrail.data.preprocess import Preprocess
from vitrail.data.videos import frames_of, write_video
from vitrail.explainers import clip_page
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.live_attention import LiveAttention
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task

FRAMES, SIDE = 4, 32
NETWORKS = {
    "divided": ("timesformer_digits", {"depth": 2, "width": 32, "heads": 2}, None),
    "attention": ("vit_digits", {"depth": 2, "width": 32, "heads": 2}, "attention"),
    "convolutions": ("resnet18", {}, "mean"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A bright square that moves over a wide frame, for two seconds."""
    frames = []
    for t in range(20):
        frame = np.full((48, 64, 3), 40, np.uint8)
        frame[10:24, 2 * t : 2 * t + 14] = (220, 180, 60)
        frames.append(frame)
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    write_video(path, frames, 10.0)
    return path


@pytest.fixture(scope="module", params=NETWORKS)
def model(request, model_file):
    name, settings, over_time = NETWORKS[request.param]
    torch.manual_seed(0)
    encoder = create_encoder(name, image=SIDE, settings=settings, frames=FRAMES, over_time=over_time)
    task = build_task("classify", ["left", "right", "up"], {})
    network = build_network(encoder, task).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model_file(name, network, task, Preprocess((SIDE, SIDE), "crop", frames=FRAMES))


def test_the_page_of_a_clip_shows_frames_shares_and_tests(vitrail, model, clip, tmp_path):
    done = vitrail("explain", model, clip, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    page = (tmp_path / "moving.html").read_text()
    first = [one for one in found["explanations"] if one["of"] == found["explanations"][0]["of"]]
    for one in first:
        assert one["times"] == pytest.approx([0.2, 0.7, 1.2, 1.7], abs=0.06)
        assert sum(one["shares"]) == pytest.approx(1, abs=1e-4)
        assert len(one["shares"]) == FRAMES == len(one["grid"])
        assert one["faithful"]
        film = re.search(rf'data-film="{one["method"]}">.*?</div>', page, re.S)
        assert film
        assert film[0].count("<img") == FRAMES
    assert "occlusion" in [one["method"] for one in first]
    assert page.count('data-film="the clip"') == 1
    assert "http" not in page.replace("http://www.w3.org", "")
    shown = [frame for _, frame in frames_of(tmp_path / "moving.explained.mp4")]
    assert found["animation"] == str(tmp_path / "moving.explained.mp4")
    assert len(shown) >= 24
    assert np.abs(shown[0].astype(int) - shown[-1]).max() > 50  # it moves


def test_a_method_is_drawn_as_a_strip_and_an_animation(vitrail, model, clip, tmp_path):
    done = vitrail("explain", model, clip, "--method", "occlusion", "--no-check", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "moving-occlusion.png") as drawn:
        assert drawn.width == FRAMES * 206 - 6  # four frames beside each other
    assert (tmp_path / "moving-occlusion.explained.mp4").stat().st_size > 1000


def test_what_the_crop_leaves_out_has_no_heat(model, clip):
    look = ImageExplainer(Predictor(model), clip)
    found = look.explain("occlusion")
    assert found.heat.shape == (FRAMES, 48, 64)
    assert np.isnan(found.heat[:, :, :2]).all()  # 48 of 64 pixels are seen, and of these seven eighths
    assert np.isfinite(found.heat[:, 24, 32]).all()
    assert found.figure(400).width <= 400


def test_without_pyav_a_folder_of_frames_gets_a_gif(model, tmp_path, monkeypatch):
    from vitrail.core.errors import MissingExtraError

    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(8):
        frame = np.full((32, 32, 3), 40, np.uint8)
        frame[8:16, 2 * t : 2 * t + 8] = 200
        Image.fromarray(frame).save(folder / f"{t:04}.png")

    def missing(*_):
        raise MissingExtraError("PyAV is not installed.")

    monkeypatch.setattr(clip_page, "write_video", missing)
    found = ImageExplainer(Predictor(model), folder).explain("occlusion")
    path = clip_page.write_animation(found, tmp_path / "frames.html")
    assert path.name == "frames.explained.gif"
    with Image.open(path) as moving:
        assert moving.n_frames >= 24


def test_inspect_measures_the_distance_within_frames(vitrail, model, clip, tmp_path):
    done = vitrail("inspect", model, clip, "--out", tmp_path / "inside", "--json")
    assert done.returncode == 0, done.stderr
    blocks = Predictor(model).network.spec.blocks
    assert len(json.loads(done.stdout)["attention_distance_px"]) == blocks
    refused = vitrail("inspect", model, "--pipeline", clip, "--out", tmp_path / "steps")
    assert refused.returncode != 0
    assert "is not a plain ViT" in refused.stderr


def test_a_camera_is_refused_for_a_model_of_clips(model):
    with pytest.raises(RunError, match="takes clips of 4 frames"):
        LiveAttention(Predictor(model))
