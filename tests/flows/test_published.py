"""Published weights get images as their authors evaluated them: against timm's and transformers' own pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image, ImageCms
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.data.imagenet_info import ImageNetInfo
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification

from vitrail.data.colour_profile import PROFILE
from vitrail.data.decode import decode
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.open_encoder import open_encoder
from vitrail.explainers.walkthrough import open_subject
from vitrail.infer.predictor import Predictor
from vitrail.runs.network import create_model
from vitrail.runs.run import open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.distillation import open_teacher
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import Planned, plan
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.resolve import find_weights

SIDE = 96
SHAPES = [(120, 160), (161, 119), (97, 203), (40, 64)]


def smooth(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Return an image without the ends of the scale, where Pillow clips what bicubic overshoots and we do not."""
    coarse = np.random.default_rng(seed).integers(70, 186, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def timm_folder(folder: Path, **stated: Any) -> Path:
    """Write a network of timm as its hub has it, with what is stated of its preprocessing."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4)
    folder.mkdir(exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    cfg = {
        "input_size": [3, SIDE, SIDE],
        "num_classes": 4,
        "classifier": "fc",
        "first_conv": "conv1.0",
        **stated,
    }
    config = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


HALF = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.3]}
STATED = [
    {"interpolation": "bilinear", "crop_pct": 0.8, **HALF},
    {"interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center"},
    {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
    {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash", **HALF},
    {"interpolation": "bicubic", "crop_pct": 0.965, "crop_mode": "border", **HALF},
    {},
]


@pytest.mark.parametrize("stated", STATED, ids=str)
def test_a_folder_of_timm_is_asked_as_timm_asks_it(tmp_path, stated):
    """Pillow rounds after each of its two passes: 1.5 of 255 at most, half of one on the mean."""
    folder = timm_folder(tmp_path / "theirs", **stated)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=theirs))
    steps = open_encoder(str(folder), "cpu").preprocess
    ours = create_model("test_resnet", 4, pretrained=str(folder))
    std = torch.tensor(steps.std).view(3, 1, 1) * 255
    for seed, shape in enumerate(SHAPES):
        image = smooth(seed, shape)
        found, expected = steps.eval(image)[0], transform(Image.fromarray(image))
        if steps.fit == "pad":  # where the ground is odd, timm has the one pixel more below, and we above
            ground = (np.array(steps.size) - np.array(steps._plan(*shape).resized)).clip(min=0) % 2
            expected = expected.roll(tuple(map(int, ground)), (1, 2))
        apart = (found - expected).abs() * std
        assert float(apart.max()) < 1.5, shape
        assert float(apart.mean()) < 0.5, shape
        with torch.no_grad():
            torch.testing.assert_close(ours(found[None]), theirs(expected[None]), rtol=0, atol=0.02)


PROCESSORS: list[dict[str, Any]] = [
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}, "resample": 2},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 48, "resample": 3, "rescale_factor": 1 / 127.5},
    {
        "image_processor_type": "DeiTImageProcessor", "size": {"height": 56, "width": 56}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 48, "width": 48},
    },
    {
        "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 56}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 48, "width": 48},
    },
    {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 48 / 56,
        "resample": 3,
    },
    {
        "image_processor_type": "CLIPImageProcessor", "size": 62, "resample": 2, "do_center_crop": True,
        "crop_size": 48,
    },
]  # fmt: skip


EVEN = [(120, 160), (160, 120), (97, 201), (40, 66)]
"""Shapes whose resized sides are cut by as much on both ends: of an odd pixel more transformers cuts it at the end,
torchvision, timm and we now there, now at the start."""


def hub_folder(folder: Path, stated: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=48,
        patch_size=8, num_labels=4,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    usual = {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3]}
    said = {**usual, "image_std": [0.5, 0.2, 0.3], **stated}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("stated", PROCESSORS, ids=lambda one: next(iter(one.values())))
def test_a_folder_of_hugging_face_is_asked_as_transformers_asks_it(tmp_path, stated):
    """transformers rounds to whole numbers once: half of one at most, beside the weights it rounds."""
    folder = hub_folder(tmp_path / "theirs", stated)
    processor = AutoImageProcessor.from_pretrained(folder)
    theirs = ViTForImageClassification.from_pretrained(folder).eval()
    subject = open_subject(str(folder))
    assert subject.answers
    std = torch.tensor(subject.preprocess.std).view(3, 1, 1) * 255
    for seed, shape in enumerate(EVEN):
        image = smooth(seed, shape)
        found = subject.preprocess.eval(image)[0]
        expected = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
        assert float(((found - expected).abs() * std).max()) < 1.5, shape
        with torch.no_grad():
            ours = subject.network({"images": found[None]})["logits"]
            torch.testing.assert_close(ours, theirs(expected[None]).logits, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("stated", "word", "usual"),
    [
        ({"interpolation": "lanczos", "crop_pct": 0.9}, "resized with lanczos", ("crop", 0.9, "bicubic")),
        ({"interpolation": "bilinear", "crop_pct": 1.15}, "a border around", ("crop", 1.0, "bilinear")),
    ],
)
def test_what_is_not_here_is_said(tmp_path, photographs, stated, word, usual):
    folder = timm_folder(tmp_path / "theirs", **stated)
    with pytest.warns(UserWarning, match=word):
        steps = open_encoder(str(folder), "cpu").preprocess
    assert (steps.fit, steps.crop_fraction, steps.interpolation) == usual
    assert any(word in reason for reason in planned(photographs, folder).reasons)


def test_a_teacher_sees_the_student_s_crop_by_its_own_interpolation(tmp_path):
    folder = timm_folder(tmp_path / "theirs", **STATED[0])
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    student = Preprocess((64, 64))
    with pytest.warns(UserWarning, match="in your order"):
        teacher = open_teacher(str(folder), ("a", "b", "c", "d"), student)
    images = student.eval(smooth(0, (90, 120)))[0][None]
    fitted = interpolate(student.restore(images), (SIDE, SIDE), mode="bilinear", antialias=True)
    mean, std = (255 * torch.tensor(HALF[part]).view(3, 1, 1) for part in ("mean", "std"))
    with torch.no_grad():
        wanted = theirs((fitted - mean) / std)
        torch.testing.assert_close(teacher(images)["logits"], wanted, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photographs") / "photographs"
    for seed in range(24):
        file = root / "abcd"[seed % 4] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(seed, (90, 120))).save(file)
    return root


def planned(photographs: Path, weights: Path, **options: Any) -> Planned:
    said = TrainOptions(weights=str(weights), model="test_resnet", tune="full", **options)
    return plan(str(photographs), prepare(photographs), said)


def view(planned: Planned) -> tuple[str, float | None, str]:
    model = planned.recipe.model
    return model.fit, model.crop_fraction, model.interpolation


def test_a_fine_tune_sees_what_the_weights_saw_unless_somebody_says_otherwise(tmp_path, photographs):
    folder = timm_folder(tmp_path / "theirs", **STATED[0])
    found = planned(photographs, folder)
    assert view(found) == ("crop", 0.8, "bilinear")
    assert any("0.8 of each side shown, bilinear" in reason for reason in found.reasons)
    stated = published_preprocess(find_weights(str(folder)))
    assert (
        build_from_recipe(found.recipe, "abcd").preprocess
        == stated
        == Preprocess((SIDE, SIDE), "crop", 0.8, (0.5, 0.4, 0.3), (0.5, 0.2, 0.3), 3, "bilinear")
    )
    assert view(planned(photographs, folder, fit="crop")) == ("crop", 0.8, "bilinear")
    assert view(planned(photographs, folder, fit="pad")) == ("pad", 1.0, "bilinear")
    assert view(planned(photographs, folder, imgsz="64")) == ("crop", 0.8, "bilinear")
    usual = planned(photographs, timm_folder(tmp_path / "usual"))
    assert view(usual) == ("crop", 0.875, "bicubic")
    assert not any("shown" in reason for reason in usual.reasons)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"fit": "crop"}, ("crop", 0.875, "bicubic")),  # as every recipe.yaml from before
        ({"fit": "squash"}, ("squash", 1.0, "bicubic")),
        ({"crop_fraction": 0.7}, ("crop", 0.7, "bilinear")),
        ({"interpolation": "bicubic"}, ("crop", 0.8, "bicubic")),
        ({"fit": "pad", "crop_fraction": 0.9, "interpolation": "bilinear"}, ("pad", 0.9, "bilinear")),
    ],
    ids=str,
)
def test_a_recipe_wins(tmp_path, photographs, said, expected):
    folder = timm_folder(tmp_path / "theirs", **STATED[0])
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({"model": {"name": "test_resnet", **said}}))
    assert view(planned(photographs, folder, recipe=str(recipe))) == expected


def test_tiny_pictures_keep_their_margin(tmp_path, some_digits):
    folder = timm_folder(tmp_path / "theirs", **STATED[0])
    assert view(planned(some_digits("0123", 4), folder)) == ("squash", 1.0, "bilinear")


def test_a_run_and_its_model_say_what_was_used(vitrail, tmp_path, photographs):
    folder, out = timm_folder(tmp_path / "theirs", **STATED[0]), tmp_path / "run"
    words = ("--weights", folder, "--tune", "head", "--epochs", "1", "batch=8", "micro=8", "workers=0")
    done = vitrail("train", photographs, *words, "--precision", "float32", "--out", out)
    assert done.returncode == 0, done.stderr
    model = open_run(out).recipe().model
    assert (model.fit, model.crop_fraction, model.interpolation) == ("crop", 0.8, "bilinear")
    expected = Preprocess((SIDE, SIDE), "crop", 0.8, (0.5, 0.4, 0.3), (0.5, 0.2, 0.3), 3, "bilinear")
    assert Predictor(out).preprocess == expected
    (folder / "config.json").unlink()  # neither resume nor prediction asks the weights again
    done = vitrail("train", "--resume", out, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert Predictor(out).preprocess == expected


def picture_of(data: bytes, converted: bool) -> Image.Image:
    """Return a photograph as timm is given it; Pillow brings its colours to sRGB where ours were, timm never does."""
    picture = Image.open(BytesIO(data))
    if not converted:
        return picture.convert("RGB")
    profile = ImageCms.ImageCmsProfile(BytesIO(picture.info["icc_profile"]))
    return ImageCms.profileToProfile(picture.convert("RGB"), profile, ImageCms.createProfile("sRGB"))


def test_the_real_network_answers_as_under_timm(shared: Callable[[str], Path]):
    """A hundred photographs; Pillow rounds and clips after each pass, which comes to half of one in 255 on the mean."""
    folder, archive = shared("weights/tf_efficientnet_lite0"), shared("data/photos-100.zip")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=theirs))
    steps = open_encoder(str(folder), "cpu").preprocess
    ours = create_model("tf_efficientnet_lite0", pretrained=str(folder))
    known = list(ImageNetInfo().label_names())
    same, right, apart = 0, [0, 0], []
    with ZipFile(archive) as photographs, torch.no_grad():
        files = sorted(name for name in photographs.namelist() if name.endswith(".JPEG"))
        for name in files:
            data = photographs.read(name)
            shown = decode(data, 3)
            found = steps.eval(shown.image)[0]
            expected = transform(picture_of(data, PROFILE in shown.notes))
            apart.append(float((found.clamp(-1, 1) - expected).abs().mean()) * 127.5)
            answers = [int(network(x[None]).argmax()) for network, x in ((ours, found), (theirs, expected))]
            truth = known.index(Path(name).name.partition("_")[0])
            same += answers[0] == answers[1]
            right = [count + (answer == truth) for count, answer in zip(right, answers, strict=True)]
    assert len(files) == 100
    assert max(apart) < 0.5
    assert same >= 98
    assert min(right) >= 90
