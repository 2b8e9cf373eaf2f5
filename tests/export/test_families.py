"""A model leaves by the command line and answers as before: every family, every shape of image, several labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vitrail.cli.main import run
from vitrail.data.preprocess import Preprocess
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.mixer import MixerConfig
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.t2t import T2TConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import VVTConfig
from vitrail.models.wetmapformer import WetMapFormerConfig
from vitrail.runs.proof import picture

KINDS = {
    "vit": ("vit_digits", 32, "classify", {"pool": "cls"}),
    "several labels": ("vit_digits", 32, "multilabel", {}),
    "cnn of timm": ("resnet10t", 32, "classify", {}),
    "supervit": ("supervit_digits", 32, "classify", {}),
    "swin": (SwinConfig(32, 2, width=12, depths=(2, 2), heads=(1, 3), window=4), 32, "classify", {}),
}

SMALL = {
    "hybrid": ViTConfig(image=32, patch=2, width=66, depth=2, heads=3, stem=(32, 1, 1)),
    "deit, two heads": DeiTConfig(image=28, patch=7, width=66, depth=2, heads=3, prefix=("cls", "dist")),
    "deit iii": DeiTConfig(
        image=28, patch=7, width=66, depth=2, heads=3, position="1d_patches", layer_scale=0.5
    ),
    "dinov2 with registers": DinoV2Config(
        image=(28, 35), patch=7, width=66, depth=2, heads=3, registers=3, layer_scale=0.5
    ),
    "t2t": T2TConfig(image=32, token_width=30, width=66, depth=2, heads=3),
    "t2t transformer": T2TConfig(image=32, tokens="transformer", width=66, depth=2, heads=3),
    "supervit with a stem": SuperViTConfig(
        image=32, patch=4, width=66, depth=4, heads=3, form="lvvit", stations=(1, 2)
    ),
    "vvt": VVTConfig(
        image=32, widths=(24, 40), depths=(2, 2), heads=(1, 2), hidden=(4, 4), reduce=(2, 2), shrink=(2, 1)
    ),
    "wetmapformer": WetMapFormerConfig(32, 3, widths=(24, 40), depths=(2, 2), head_dim=20),
    "mixer": MixerConfig(image=(28, 35), patch=7, width=66, depth=2, places=24, hidden=72),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def said(capsys, *words):
    code = run([str(word) for word in words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_leaves_and_answers_as_before(written, pictures, here, capsys, kind):
    name, side, task, settings = KINDS[kind]
    answers_as_before(written(name, Preprocess.for_size(side), task, **settings), pictures, here, capsys)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", SMALL)
def test_every_page_leaves_and_answers_as_before(written, pictures, here, capsys, kind):
    answers_as_before(written(SMALL[kind]), pictures, here, capsys, least=8)


def answers_as_before(model, pictures, here, capsys, least=200):
    done = said(capsys, "export", model, "--data", pictures, "--json")
    found = done["agreement"]
    assert found["pictures"] >= least
    assert found["same_top"] + found["ties"] == found["pictures"]
    assert (found["smallest"], found["largest"]) == ([17, 23], [3000, 4000])
    assert found["drift"] < 1e-3
    assert done["path"] == "toy.onnx"
    assert sorted(path.name for path in here.glob("toy*")) == ["toy.onnx", "toy.onnx.json"]
    ours, theirs = (said(capsys, "predict", one, pictures, "--json") for one in (model, "toy.onnx"))
    assert [one["path"] for one in ours] == [one["path"] for one in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["label"] == b["label"]  # all of them, where labels do not exclude each other
        apart = [
            {one["label"]: one["probability"] for one in answer["top"]} for answer in (a, b)
        ]  # two of nearly one probability may change places
        assert apart[0] == pytest.approx(apart[1], abs=1e-3)


@pytest.mark.usefixtures("few")
def test_attention_leaves_too_and_formats_are_named(written, pictures, here, capsys):
    import onnxruntime

    model = written("vit_digits", Preprocess.for_size(32), pool="cls")
    said(capsys, "export", model, "--data", pictures, "--attention", "--out", "looks.onnx", "--json")
    found = onnxruntime.InferenceSession("looks.onnx").run(["attention"], {"image": picture()})[0]
    assert found.shape == (8, 8)
    assert 0 < found.sum() <= 1 + 1e-5
    assert np.isfinite(found).all()
    assert run(["export", str(model), "--data", str(pictures), "--format", "onnxx"]) == 1
    assert "onnx" in capsys.readouterr().err
    assert run(["export", str(model), "--data", str(pictures), "--format", "timm", "--attention"]) == 1
    assert "--format onnx" in capsys.readouterr().err
