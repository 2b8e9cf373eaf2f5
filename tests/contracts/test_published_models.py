"""Published classifiers as model files: equal to timm's and transformers' own answers, made once, and kept whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from timm.data.imagenet_info import ImageNetInfo
from timm.models._hub import save_for_hf

from vitrail.core.errors import RunError, WeightsError
from vitrail.data.preprocess import Preprocess
from vitrail.export.traced_model import Prepare
from vitrail.infer.predictor import Predictor, load
from vitrail.models.factory import create_encoder
from vitrail.runs import published
from vitrail.runs.network import build_network, build_task
from vitrail.runs.published import published_model
from vitrail.weights import checkpoints
from vitrail.weights.class_names import class_names
from vitrail.weights.resolve import find_weights

SHAPES = [(120, 160), (161, 119), (97, 203), (40, 64)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VITRAIL_CACHE", str(place))
    return place


def picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Return a smooth image with the whole scale: bicubic overshoots, which Pillow clips."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def folder_of(place: Path, name: str, stated: dict[str, Any] | None = None, **arguments: Any) -> Path:
    """Write a network of timm with random weights as timm's hub has it."""
    torch.manual_seed(0)
    network = timm.create_model(name, **arguments)
    for head in ("head", "head_dist", "fc", "classifier"):
        part = getattr(network, head, None)
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.1)
    settings = {key: value for key, value in arguments.items() if key != "num_classes"}
    save_for_hf(network, place, safe_serialization=True, model_args=settings)
    if stated is not None:
        file = place / "config.json"
        config = json.loads(file.read_text())
        config["pretrained_cfg"] |= stated
        file.write_text(json.dumps(config))
    return place


SMALL = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 6}
INPUT = {"input_size": [3, 64, 64]}
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", SMALL, {**INPUT, "crop_pct": 0.9, "interpolation": "bicubic"}),
    "vit of means": (
        "vit_tiny_patch16_224",
        {**SMALL, "global_pool": "avg"},
        {**INPUT, "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"},
    ),
    "distilled": (
        "deit_tiny_distilled_patch16_224",
        SMALL,
        {**INPUT, "crop_pct": 0.875, "interpolation": "bicubic"},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4, "num_classes": 6},
        {**INPUT, "crop_pct": 0.9, "interpolation": "bicubic"},
    ),
    "resnet": (
        "test_resnet",
        {"num_classes": 6},
        {"input_size": [3, 96, 96], "crop_pct": 0.8, "interpolation": "bilinear", "test_input_size": [3, 128, 128]},
    ),
    "efficientnet": (
        "test_efficientnet",
        {"num_classes": 6},
        {"input_size": [3, 96, 96], "crop_pct": 0.965, "crop_mode": "border", "interpolation": "bicubic"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_are_timm_s(tmp_path, name):
    """Its network on the same pixels; its transform rounds after each of two passes, ours once: one of 255 apart."""
    network, arguments, stated = NETWORKS[name]
    folder = folder_of(tmp_path / "theirs", network, stated, **arguments)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=theirs))
    made = published_model(str(folder))
    assert "it does not name its classes" in " ".join(made.notes)
    ours = Predictor(made.path)
    assert ours.labels == tuple(f"class {number}" for number in range(6))
    std = torch.tensor(ours.preprocess.std).view(3, 1, 1) * 255
    for seed, shape in enumerate(SHAPES):
        image = picture(seed, shape)
        ready = ours.ready(image)
        own = transform(Image.fromarray(image))
        with torch.no_grad():
            same = theirs(ready.pixels[None])
            torch.testing.assert_close(ours.outputs([ready])["logits"], same, rtol=0, atol=1e-4)
            wanted = theirs(own[None]).softmax(1)[0]
        found = ours.predict(image)[0]
        by_class = dict(zip(found.labels, found.probabilities, strict=True))
        probabilities = torch.tensor([by_class[label] for label in ours.labels])
        assert float((probabilities - wanted).abs().max()) < 5e-3, shape
        assert ours.labels.index(found.label) == int(wanted.argmax())
        if stated.get("crop_mode") != "border":  # whose odd pixel of ground timm has below, and we above
            assert float(((ready.pixels - own).abs() * std).max()) < 1.01


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_graph_rounds_the_same_pixels(fit):
    """All but the few that lie in the middle of two numbers, as far as float32 tells; the ground is not rounded."""
    steps = Preprocess((96, 96), fit, 0.9, (0.481, 0.457, 0.408), rounded=True)
    for seed, shape in enumerate([*SHAPES, (61, 47), (512, 300)]):
        image = picture(seed, shape)
        wanted = steps.eval(image)[0]
        apart = (Prepare(steps)(torch.tensor(image)[None])[0] - wanted).abs()
        assert int((apart > 1e-4).sum()) <= 5
        assert float((apart * torch.tensor(steps.std).view(-1, 1, 1) * 255).max()) < 1.01
        pixels = steps.restore(wanted)
        assert float((pixels - pixels.round()).abs()[wanted != 0].max()) < 1e-3
        assert 0 - 1e-3 < float(pixels.min()) < float(pixels.max()) < 255 + 1e-3
    assert Preprocess.from_dict(steps.to_dict()) == steps
    assert "rounded" not in Preprocess().to_dict()


def test_a_folder_of_transformers_answers_with_its_own_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96, image_size=48, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="do not state their preprocessing"):
        ours = load(tmp_path)
    assert ours.labels == ("cat", "dog (class 1)", "dog (class 2)")
    pixels = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        found = ours.network({"images": pixels})["logits"]
        torch.testing.assert_close(found, theirs(pixels).logits, rtol=0, atol=1e-4)


def test_names_of_imagenet_are_short_unique_and_keep_their_ids():
    found = class_names((), 1000)
    assert found.names[134] == "crane (large long-necked wading bird)"
    assert found.names[517] == "crane (lifts and moves heavy objects)"
    assert found.names[638].startswith("maillot (tights")
    assert found.names[9] == "ostrich"
    assert found.ids[9] == "n01518878"
    assert len(set(found.names)) == 1000
    info: Any = ImageNetInfo()
    whole = class_names(info.label_descriptions(), 1000)  # as transformers' config.json has them
    assert (whole.names, whole.ids, whole.assumed) == (found.names, found.ids, "")
    some = class_names(["n02110958", "n01518878"], 2)
    assert (some.names, some.ids) == (("pug", "ostrich"), ("n02110958", "n01518878"))
    assert class_names(["crane", "bus"], 2).ids == ()
    for count in (11821, 21841, 21843):
        assert len(set(class_names((), count).names)) == count


def test_the_file_is_made_once_and_again_where_it_is_broken_or_its_weights_changed(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "net", "test_resnet", num_classes=4)
    first = published_model(str(folder))
    whole = first.path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(published, "write_model", None)
        assert published_model(str(folder)) == first
    for damage in (whole[:-9], whole[:-9] + b"123456789"):
        first.path.write_bytes(damage)
        assert published_model(str(folder)) == first
        assert Predictor(first.path).labels == ("class 0", "class 1", "class 2", "class 3")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: 2 * one for name, one in tensors.items()}, folder / "model.safetensors")
    other = published_model(str(folder))
    assert other.path != first.path
    assert Predictor(other.path).header.name == "net"


def test_a_full_disk_is_said(tmp_path, small_disk, monkeypatch):
    folder = folder_of(tmp_path / "net", "test_efficientnet", num_classes=4)
    (small_disk / "filler").write_bytes(bytes(1_800_000))
    monkeypatch.setenv("VITRAIL_CACHE", str(small_disk))
    with pytest.raises(RunError, match="could not be written"):
        published_model(str(folder))


def test_weights_that_cannot_answer_are_told_what_to_do(tmp_path):
    backbone = folder_of(tmp_path / "backbone", "vit_tiny_patch16_224", **{**SMALL, "num_classes": 0})
    with pytest.raises(WeightsError, match=r"have no classifier.*vitrail train IMAGES --weights .*backbone"):
        published_model(str(backbone))
    with pytest.raises(WeightsError, match=r"No weights with a classifier are published for dinov2_s14"):
        published_model("dinov2_s14")
    broken = folder_of(tmp_path / "broken", "test_resnet", num_classes=4)
    tensors = load_file(broken / "model.safetensors")
    save_file({**tensors, "fc.bias": torch.full((4,), torch.nan)}, broken / "model.safetensors")
    with pytest.raises(WeightsError, match="not finite"):
        published_model(str(broken))


def test_a_network_of_ours_stands_for_its_best_published_classifier():
    names = {
        name: checkpoints.classifiers(name)[0].name for name in ("vit_s16", "vit_b16", "deit_b16", "swin_t")
    }
    assert names == {
        "vit_s16": "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "vit_b16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "deit_b16": "deit_base_patch16_224.fb_in1k",
        "swin_t": "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k",
    }


def test_a_model_of_ours_that_was_pushed_is_opened_as_it_is(tmp_path, model_file):
    torch.manual_seed(0)
    encoder = create_encoder("vit_digits")
    task = build_task("classify", ["a", "b"], {})
    network = build_network(encoder, task).eval()
    steps = Preprocess.for_size(encoder.image_size)
    whole = model_file("mine", network, task, steps)
    whole.rename(tmp_path / "model.safetensors")
    assert published_model(str(tmp_path)) == (tmp_path / "model.safetensors", ())


def test_a_checkpoint_says_its_licence(tmp_path):
    folder = folder_of(tmp_path / "net", "test_resnet", {"license": "mit"}, num_classes=4)
    assert find_weights(str(folder)).licence == "mit"
    with pytest.warns(UserWarning, match="does not name its classes"):
        header = load(folder).header
    assert (header.licence, header.weights, header.name) == ("mit", "net", "net")
