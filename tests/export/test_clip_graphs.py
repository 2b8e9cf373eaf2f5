"""Exports of models of clips: one clip of any size or several, in every format of a graph."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.export.export import export
from vitrail.infer.predictor import Predictor, load
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task

SIZE, FRAMES = (24, 36), 3
LABELS = ("down", "left", "up")
SMALL = {"patch": 6, "width": 24, "depth": 2, "heads": 2}
NETWORKS = {
    "mean": ("vit_s16", {"over_time": "mean", "settings": SMALL}, "crop"),
    "attention": ("vit_s16", {"over_time": "attention", "settings": SMALL}, "pad"),
    "timesformer": ("timesformer_s", {"settings": SMALL}, "squash"),
}


@pytest.fixture
def written(model_file):
    """Write a random network of clips with a steep head, so that its answers differ from clip to clip."""

    def write(which):
        name, settings, fit = NETWORKS[which]
        torch.manual_seed(0)
        task = build_task("classify", LABELS, {})
        encoder = create_encoder(name, image=SIZE, frames=FRAMES, **settings)
        network = build_network(encoder, task).eval()
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            network.head.linear.weight.copy_(torch.randn_like(network.head.linear.weight))
        return model_file(name, network, task, replace(Preprocess(SIZE, fit), frames=FRAMES))

    return write


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Folders of frames, of four sizes and numbers of frames."""
    folder = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    for clip in range(4):
        (folder / f"{clip}").mkdir()
        small = draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        for turn in range(3 + clip):
            frame = Image.fromarray(np.roll(small, turn, 1)).resize((40 + 9 * clip, 61 - 7 * clip))
            frame.save(folder / f"{clip}" / f"{turn:03}.png")
    return folder


@pytest.mark.parametrize("which", NETWORKS)
@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
@pytest.mark.usefixtures("few")
def test_a_graph_of_clips_agrees_and_is_opened_like_any_other_model(written, clips, tmp_path, which, format):
    model = written(which)
    out = tmp_path / {"onnx": "a.onnx", "openvino": "a.xml", "torch": "a.pt2"}[format]
    batch, attention = which == "mean", which != "attention"
    done = export(model, format, out, data=clips, batch=batch, attention=attention)
    assert done.agreement.same_top + done.agreement.ties == done.agreement.pictures == 8
    assert done.agreement.largest == (600, 800)
    ours, theirs = Predictor(model), load(out, trust=True)
    names = sorted(str(path) for path in clips.iterdir())
    apart = [
        np.subtract(a.probabilities, b.probabilities) for a, b in zip(ours(names), theirs(names), strict=True)
    ]
    assert len(apart) == 4
    assert np.abs(apart).max() < 1e-5
    told = json.loads(out.with_name(f"{out.name}.json").read_text())
    axes = [FRAMES, "height", "width", 3]
    assert told["input"]["shape"] == (["batch", *axes] if batch else axes)
    assert told["input"]["name"] == ("clips" if batch else "clip")
    assert f"{FRAMES} equal spans" in told["decoding"]


def test_folders_of_libraries_take_no_clips(written, clips, tmp_path):
    with pytest.raises(SettingError, match="takes images, and this model takes clips"):
        export(written("mean"), "timm", tmp_path / "folder", data=clips)
