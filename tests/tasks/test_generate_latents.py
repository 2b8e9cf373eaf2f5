"""Generation in the latents of an autoencoder: what the network sees, what is made, and a training's first network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.truth import Truth
from vitrail.infer.made_images import made_images, making_of
from vitrail.infer.predictor import Predictor
from vitrail.models.dit import DiTConfig
from vitrail.models.factory import build
from vitrail.runs.network import build_network
from vitrail.runs.published import published_model
from vitrail.runs.recipe import DataSettings, ModelSettings, Recipe, TaskSettings
from vitrail.tasks.base import Ask
from vitrail.tasks.generate.latents import Autoencoder
from vitrail.tasks.generate.sampling import Making
from vitrail.tasks.generate.task import CLEAN, Generate
from vitrail.training.initialization import build_from_recipe
from vitrail.weights.convert import convert
from vitrail.weights.rules import save
from vitrail.weights.tables import dit as tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    ).save_pretrained(path)
    return path


@pytest.fixture
def task(folder: Path) -> Generate:
    return Generate(["cat", "dog"], {"vae": str(folder), "steps": 4})


def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_the_network_sees_latents_and_makes_pixels(task: Generate, folder: Path):
    size, channels = task.network_input((16, 16), 3)
    assert (size, channels) == ((8, 8), 4)
    encoder = build(DiTConfig(image=size, channels=channels, width=32, depth=1, heads=2, classes=2))
    network = build_network(encoder, task).eval()
    batch = Batch(inputs={"images": images()}, targets=torch.tensor([0, 1]), ids=("a", "b"), geometry=())
    output = task.answer(network, batch, Ask())
    torch.testing.assert_close(output[CLEAN], Autoencoder(folder).encode(images()))
    assert output["noise"].shape == (2, 4, 8, 8)
    first = task.training_loss(network, batch, np.random.default_rng(1), 0.0)
    again = task.training_loss(network, batch, np.random.default_rng(1), 0.0)
    assert torch.equal(first.total, again.total)
    made = task.made(network, 1, 0, range(3), Making.of(task.settings), torch.zeros(3, 16, 16))
    assert made.shape == (3, 3, 16, 16)


def test_a_training_builds_the_network_of_the_latents_and_keeps_the_images(folder: Path):
    recipe = Recipe(
        recipe="dit",
        data=DataSettings(),
        model=ModelSettings(name="dit_digits", imgsz=(16, 32)),
        task=TaskSettings(name="generate", settings={"vae": str(folder)}),
    )
    start = build_from_recipe(recipe, Truth("class", ("cat", "dog", "owl")))
    config = start.network.encoder.config
    assert (config.size, config.channels, config.classes) == ((8, 16), 4, 3)
    assert (start.preprocess.size, start.preprocess.channels) == ((16, 32), 3)
    one = ModelSettings(name="dit_digits", imgsz=(16, 32), channels=1)
    with pytest.raises(SettingError, match="takes images of 3 channels, not 1"):
        build_from_recipe(recipe.model_copy(update={"model": one}), Truth("class", ("cat", "dog")))


def test_a_published_network_with_its_autoencoder_beside_it_makes_pixels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder = build(DiTConfig(image=8, channels=4, width=32, depth=1, heads=2, classes=3))
    head = encoder.own_head("generate", 3)
    assert head is not None
    save_file(save(tables.OFFICIAL, encoder.state_dict(), head.state_dict()), tmp_path / "one.safetensors")
    convert(tmp_path / "one.safetensors", tmp_path / "DiT.safetensors", to="official", network={"heads": 2})
    alone = Predictor(published_model(str(tmp_path / "DiT.safetensors")).path, "cpu")
    with pytest.raises(SettingError, match=r"latents of 4 channels.*under the name vae"):
        list(made_images(alone, "class 1", 1, making=making_of(alone, {"steps": 3})))
    shutil.copytree(folder, tmp_path / "vae")
    opened = Predictor(published_model(str(tmp_path / "DiT.safetensors")).path, "cpu")
    assert (opened.preprocess.size, opened.preprocess.channels) == ((16, 16), 3)
    made = list(made_images(opened, "class 1", 2, making=making_of(opened, {"steps": 3})))
    assert [(one.size, one.mode) for one in made] == [((16, 16), "RGB")] * 2
    photo = np.zeros((20, 20, 3), np.uint8)
    changed = list(made_images(opened, "class 1", 1, making=making_of(opened, {"steps": 3}), image=photo))
    assert changed[0].size == (16, 16)
