"""CLIP as the hub has it: fetched, it reads images and texts as under transformers, and begins trainings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub  # noqa: F401  (it reads HF_HUB_OFFLINE once, so before a test sets it)
import numpy as np
import pytest
import torch
from hub_server import Hub
from PIL import Image
from safetensors.torch import load_file, save_file
from small_clip import small_clip
from transformers import CLIPImageProcessor, CLIPModel

from vitrail.core.errors import WeightsError
from vitrail.data.vocabulary import clip_vocabulary
from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.runs.model_source import model_path
from vitrail.weights.convert import convert
from vitrail.weights.detectors import detectors
from vitrail.weights.resolve import find_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*the weights clip_b32")

TEXTS = ["a red bus in the rain", "two cats", "ein Haus am See"]
REPOS = ("openai/clip-vit-base-patch32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP of transformers with random numbers and the whole vocabulary, as its hub has it."""
    return small_clip(tmp_path_factory.mktemp("theirs") / "net")


@pytest.fixture
def hub(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for path in theirs.iterdir():
        for repo in REPOS:
            server.files[f"{repo}/resolve/main/{path.name}"] = path.read_bytes()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(folder: Path) -> Path:
    """A photograph as smooth as one, wider than high."""
    rows, cols = np.mgrid[:48, :64] / 10
    values = np.stack([np.sin(rows + cols), np.cos(rows * 2), np.sin(cols * 3)], -1)
    Image.fromarray((127 + 90 * values).astype(np.uint8)).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.mark.parametrize("name", [*REPOS, "clip_b32", "clip_b32.laion2b"])
def test_images_and_texts_have_the_vectors_of_transformers(hub, theirs, tmp_path, name):
    predictor = Predictor(model_path(name))
    assert predictor.task.name == "retrieve"
    photo = picture(tmp_path)
    network = CLIPModel.from_pretrained(theirs).eval()
    tokens = torch.from_numpy(clip_vocabulary().tokens(TEXTS))
    with Image.open(photo) as image:
        pixels = CLIPImageProcessor.from_pretrained(theirs)(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = network(pixel_values=pixels, input_ids=tokens)
    np.testing.assert_allclose(text_vectors(predictor, TEXTS), wanted.text_embeds.numpy(), atol=1e-5)
    ready = predictor.ready(photo)
    image = predictor.outputs([ready])["image"]
    # Pillow rounds to whole numbers after each pass.
    torch.testing.assert_close(image, wanted.image_embeds, rtol=0, atol=5e-3)


def test_it_is_an_image_encoder_for_any_task(vitrail, hub, some_digits, tmp_path):
    data, words = (
        some_digits("01", 12),
        ("--tune", "full", "--epochs", 1, "--batch", 8, "--out", tmp_path / "run"),
    )
    done = vitrail("train", data, "--weights", REPOS[0], *words)
    assert done.returncode == 0, done.stderr
    made = Predictor(tmp_path / "run" / "model.safetensors")
    assert (made.task.name, made.network.encoder.config.family) == ("classify", "clip")
    assert find_weights(REPOS[0]).config.gelu == "quick"


def test_a_training_on_captions_begins_with_both_towers(vitrail, hub, tmp_path):
    for number in range(12):
        Image.new("RGB", (40, 40), (20 * number, 90, 200 - 15 * number)).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,a colour of number {number}" for number in range(12)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,caption", *lines]))
    words = ("--task", "retrieve", "--tune", "full", "--epochs", 1, "--batch", 4, "--out", tmp_path / "run")
    done = vitrail("train", tmp_path / "pairs.csv", "--weights", "clip_b32", *words)
    assert done.returncode == 0, done.stderr
    tensors = len(find_weights("clip_b32").head)
    assert f"head of clip_b32.openai: {tensors} of {tensors} tensors taken" in done.stderr
    trained = Predictor(tmp_path / "run" / "model.safetensors")
    assert trained.task.settings.vocabulary == "clip"
    assert text_vectors(trained, TEXTS).shape == (3, 20)


def test_a_word_is_explained_by_any_method(vitrail, hub, tmp_path):
    photo = picture(tmp_path)
    done = vitrail(
        "explain", REPOS[0], photo, "--of", TEXTS[0], "--method", "relevance", "--out", tmp_path, "--json"
    )
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    assert found["explanations"][0]["method"] == "relevance"
    without = vitrail("explain", REPOS[0], photo, "--method", "relevance", "--out", tmp_path)
    assert without.returncode != 0
    assert '--of "a red bus"' in without.stderr


def test_open_clip_files_alone_are_enough(hub, theirs, tmp_path):
    """A repository of open_clip, with its own configuration and no other."""
    convert(theirs, tmp_path / "ours.safetensors", to="official")
    save_file(load_file(tmp_path / "ours.safetensors"), tmp_path / "open_clip_model.safetensors")
    cfg: dict[str, Any] = {
        "model_cfg": {
            "embed_dim": 20,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    for name, content in (
        ("open_clip_model.safetensors", (tmp_path / "open_clip_model.safetensors").read_bytes()),
        ("open_clip_config.json", json.dumps(cfg).encode()),
    ):
        hub.files[f"them/clip/resolve/main/{name}"] = content
    predictor = Predictor(model_path("them/clip"))
    np.testing.assert_allclose(
        text_vectors(predictor, TEXTS), text_vectors(Predictor(model_path(REPOS[0])), TEXTS), atol=1e-6
    )
    assert predictor.preprocess.mean == (0.5,) * 3


def test_a_tower_of_another_vocabulary_is_refused(theirs, tmp_path):
    tensors = load_file(theirs / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    (tmp_path / "few").mkdir()
    save_file({**tensors, name: tensors[name][:999].clone()}, tmp_path / "few" / "model.safetensors")
    (tmp_path / "few" / "config.json").write_text((theirs / "config.json").read_text())
    with pytest.raises(WeightsError, match=r"has 999 tokens, and its vocabulary 49,408.*tokenizer\.json"):
        model_path(tmp_path / "few")


def test_every_name_has_a_network_of_ours():
    rows = detectors("clip_*")
    assert {row.model for row in rows} == {"clip_b32", "clip_b16", "clip_l14", "clip_l14_336", "clip_h14"}
    assert {row.task for row in rows} == {"retrieve"}
