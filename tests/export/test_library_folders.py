"""Folders for timm and transformers: each of the family is read back by the library and answers as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.benchmark.peers import timm_twin, transformers_twin
from vitrail.core.errors import RunError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.export.export import export
from vitrail.infer.predictor import Predictor, load
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build
from vitrail.models.mae import MAEConfig
from vitrail.models.mixer import MixerConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import picture
from vitrail.weights.library_mapping import UnsupportedByLibraryError
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path

pytestmark = pytest.mark.usefixtures("few")

VIT = ViTConfig(image=(28, 35), patch=7, width=66, depth=2, heads=3, hidden=100)
DEIT = DeiTConfig(image=28, patch=7, width=66, depth=2, heads=3)
TWO = replace(DEIT, prefix=("cls", "dist"))
THIRD = replace(DEIT, position="1d_patches", layer_scale=0.5)
DINO = DinoV2Config(image=28, patch=7, width=66, depth=2, heads=3, layer_scale=0.5)
GATED = replace(DINO, width=48, hidden=128, mlp="swiglu")
MAE = MAEConfig(image=28, patch=7, width=60, depth=2, heads=3, hidden=100)
SWIN = SwinConfig((32, 64), 2, width=12, depths=(2, 2), heads=(1, 3), window=4)
MIXER = MixerConfig(image=(32, 64), patch=32, places=77)

TIMM = {
    "vit, patches placed alone": (replace(VIT, position="1d_patches", gelu="tanh"), {}),
    "vit without a class token": (replace(VIT, prefix=()), {}),
    "vit, attention pooled": (
        ViTConfig(image=28, patch=7, width=64, depth=1, heads=1),
        {"pool": "attention"},
    ),
    "deit, two heads": (TWO, {"temperature": 1.7}),
    "deit, two heads, patches placed alone": (replace(TWO, position="1d_patches"), {}),
    "deit iii": (THIRD, {}),
    "dinov2": (DINO, {"pool": "mean"}),
    "dinov2 with registers": (replace(DINO, registers=3), {}),
    "dinov2 with registers, patches placed alone": (replace(DINO, registers=3, position="1d_patches"), {}),
    "dinov2, gated": (GATED, {}),
    "vit, sines": (replace(VIT, width=60, position="sine"), {}),
    "mae": (MAE, {}),
    "mae, class token read": (MAE, {"pool": "cls"}),
    "mae, pooled": (replace(MAE, pooled=True), {"temperature": 1.7}),
    "swin": (SWIN, {"temperature": 0.6}),
    "swin of one window": (replace(SWIN, image=16, window=8), {}),
    "mixer": (MIXER, {}),
}

HUB = {
    "vit, patches placed alone": (replace(VIT, position="1d_patches"), {}, "ViT"),
    "deit": (DEIT, {}, "ViT"),
    "deit, two heads": (TWO, {"temperature": 1.7}, "DeiT"),
    "deit, class token read": (replace(TWO, position="1d_patches"), {"pool": "cls"}, "DeiT"),
    "deit iii": (THIRD, {}, "Dinov2"),
    "dinov2": (DINO, {"pool": "cls_mean", "temperature": 0.6}, "Dinov2"),
    "dinov2, mean read": (DINO, {"pool": "mean"}, "Dinov2"),
    "dinov2 with registers": (replace(DINO, registers=3), {}, "Dinov2WithRegisters"),
    "dinov2, gated": (GATED, {"pool": "cls_mean"}, "Dinov2"),
    "mae, class token read": (MAE, {"pool": "cls"}, "ViT"),
    "swin": (replace(SWIN, image=(16, 32)), {}, "Swin"),
    "swin with places": (replace(SWIN, position="absolute"), {"temperature": 0.6}, "Swin"),
}


def agreed(done):
    return done.agreement.same_top == done.agreement.pictures >= 8 and done.agreement.drift <= 1e-5


def answers_as(model, network):
    """The softmax of what the library says, the temperature being in its heads."""
    predictor = Predictor(model)
    pixels = predictor.preprocess.eval(picture())[0][None]
    with torch.no_grad():
        wanted = predictor.task.probabilities(predictor.network({"images": pixels}))
        torch.testing.assert_close(network(pixels).softmax(-1), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TIMM)
def test_timm_reads_the_family(written, pictures, tmp_path, kind):
    import timm

    config, settings = TIMM[kind]
    model = written(config, **settings)
    done = export(model, "timm", tmp_path / "theirs", data=pictures)
    assert agreed(done)
    network = timm.create_model(f"local-dir:{done.path}", pretrained=True).eval()
    answers_as(model, network)


@pytest.mark.parametrize("kind", HUB)
def test_transformers_reads_the_family(written, pictures, tmp_path, kind):
    from transformers import AutoModelForImageClassification

    config, settings, name = HUB[kind]
    model = written(config, **settings)
    done = export(model, "huggingface", tmp_path / "theirs", data=pictures)
    assert agreed(done)
    network, loaded = AutoModelForImageClassification.from_pretrained(done.path, output_loading_info=True)
    assert type(network).__name__.removesuffix("WithTeacher") == f"{name}ForImageClassification"
    assert not any(loaded[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    answers_as(model, lambda pixels: network.eval()(pixel_values=pixels).logits)


REFUSED = {
    "overlap": ("timm", replace(VIT, image=28, patch=(7, 3)), {}, "overlap"),
    "places": ("huggingface", replace(VIT, position="relative"), {}, "'relative'"),
    "hybrid": ("timm", ViTConfig(image=32, patch=2, width=66, depth=1, heads=3, stem=(32,)), {}, "epsilon"),
    "pool": ("huggingface", VIT, {"pool": "mean"}, "--pool cls"),
    "mae": ("huggingface", MAE, {}, "--pool cls"),
    "mae, pooled": ("huggingface", replace(MAE, pooled=True), {}, "--pool cls"),
    "mae, tokens without a norm": ("timm", replace(MAE, pooled=True), {"pool": "cls"}, "normalised mean"),
    "one of two heads": ("timm", TWO, {"pool": "cls"}, "'cls'"),
    "pool of its own": ("timm", replace(VIT, width=64, heads=2), {"pool": "attention"}, "heads of 64"),
    "swin's places": ("timm", replace(SWIN, position="absolute"), {}, "relative"),
    "swin on a strip": ("timm", replace(SWIN, image=(16, 32)), {}, "shifts the other"),
    "swin, small grids": ("huggingface", replace(SWIN, image=16, window=8), {}, "smaller than the window"),
    "mixer": ("timm", replace(MIXER, width=64), {}, "S, B and L"),
    "mixer there": ("huggingface", replace(MIXER, width=64), {}, "it takes ViT, DeiT, DINOv2 and Swin alone"),
    "dinov2 on a strip": ("huggingface", replace(DINO, image=(28, 35)), {}, "square"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_answer_otherwise_is_refused(written, pictures, tmp_path, kind):
    format, config, settings, why = REFUSED[kind]
    with pytest.raises(RunError, match=f"no place for this {config.family}: .*{why}.*--format onnx"):
        export(written(config, **settings), format, tmp_path / "theirs", data=pictures)
    assert not list(tmp_path.iterdir())


def test_a_network_of_timms_is_called_so():
    assert "no place for this network of timm's: it is" in str(
        UnsupportedByLibraryError("transformers", "timm", "it is so")
    )


def test_two_heads_leave_in_every_format(written, pictures, tmp_path):
    model = written(TWO, temperature=1.7)
    for format, out in (("onnx", "m.onnx"), ("timm", "timm"), ("huggingface", "hub")):
        done = export(model, format, tmp_path / out, data=pictures)
        assert agreed(done), format
    ours, theirs = (
        [answer.probabilities for answer in predictor(pictures)]
        for predictor in (Predictor(model), load(tmp_path / "m.onnx"))
    )
    assert np.array(ours) == pytest.approx(np.array(theirs), abs=1e-5)


@pytest.mark.parametrize("config", [TWO, THIRD, DINO, SWIN], ids=lambda config: config.family)
def test_the_bench_measures_the_same_networks_beside_ours(config, tmp_path):
    torch.manual_seed(0)
    network = build_network(build(config), build_task("classify", ["a", "b", "c"], {})).eval()
    network.requires_grad_(False)
    images = torch.randn(2, 3, *config.size)
    wanted = network({"images": images})["logits"]
    for twin in (timm_twin(network), transformers_twin(network, tmp_path / "theirs")):
        torch.testing.assert_close(twin(images), wanted, rtol=0, atol=1e-5)


def test_a_classifier_that_timm_keeps_as_a_convolution(written, pictures, tmp_path):
    import timm

    model = written("resnetv2_18")
    done = export(model, "timm", tmp_path / "theirs", data=pictures)
    assert agreed(done)
    network = timm.create_model(f"local-dir:{done.path}", pretrained=True).eval()
    assert network.head.fc.weight.ndim == 4
    answers_as(model, network)
    found = from_path(done.path / "model.safetensors", "resnetv2_18")
    assert found.head["linear.weight"].ndim == 2


@pytest.mark.parametrize(("fit", "said"), [("squash", True), ("crop", False), ("pad", False)])
def test_a_fit_that_transformers_has_no_words_for_is_left_to_the_reader(
    written, pictures, tmp_path, fit, said
):
    steps = Preprocess((28, 35), fit, 0.9 if fit == "crop" else 1.0)
    done = export(
        written(VIT, preprocess=steps, pool="cls"), "huggingface", tmp_path / "theirs", data=pictures
    )
    assert (done.path / "preprocessor_config.json").is_file() == said
    assert ("prepare the images yourself" in (done.path / "README.md").read_text()) != said


@pytest.mark.parametrize(
    "steps",
    [
        Preprocess((28, 28), "squash", 1.0, interpolation="bilinear"),
        Preprocess((28, 28), "squash", 0.8),
        Preprocess((28, 28), "crop", 0.9, interpolation="bilinear"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["huggingface", "timm"])
def test_a_written_folder_states_the_preprocessing_that_is_read_again(
    written, pictures, tmp_path, steps, kind
):
    square = ViTConfig(image=28, patch=7, width=64, depth=1, heads=1)
    done = export(written(square, preprocess=steps, pool="cls"), kind, tmp_path / "theirs", data=pictures)
    found = published_preprocess(from_path(done.path))
    assert found == replace(steps, crop_fraction=found.crop_fraction)
    side = 28 / found.crop_fraction
    assert int(side) == int(28 / steps.crop_fraction)  # transformers' folders hold the side in whole pixels


def test_an_exported_file_names_its_own_device(written, pictures, tmp_path):
    done = export(written("vit_digits", pool="cls"), "onnx", tmp_path / "a.onnx", data=pictures)
    assert load(done.path, "cpu").labels
    with pytest.raises(SettingError, match="Remove --device cuda"):
        load(done.path, "cuda")
