"""The autoencoder of latents against diffusers, and folders that hold none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from vitrail.core.errors import SettingError, WeightsError
from vitrail.tasks.generate.latents import Autoencoder, latent_shape


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 12),
        norm_num_groups=4,
        latent_channels=4,
    )
    path = tmp_path_factory.mktemp("pipeline") / "vae"
    network.save_pretrained(path)
    return path


@torch.no_grad()
def test_it_equals_diffusers_with_the_scale_of_dit(folder: Path):
    theirs = AutoencoderKL.from_pretrained(folder).eval()
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = Autoencoder(folder)
    latents = ours.encode(images)
    assert latents.shape == (2, ours.shape.channels, *ours.shape.of((24, 32))) == (2, 4, 6, 8)
    found = theirs.encode(images).latent_dist
    torch.testing.assert_close(latents, found.mode() * 0.18215)
    drawn = found.sample(torch.Generator().manual_seed(7))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(ours.encode(images, noise), drawn * 0.18215)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents / 0.18215).sample)


def test_a_pipeline_has_it_in_a_folder(folder: Path):
    assert latent_shape(folder.parent) == latent_shape(folder)


def test_a_size_that_its_cells_do_not_tile_is_refused(folder: Path):
    with pytest.raises(SettingError, match=r"cells of 4 pixels.* 30 x 32 pixels.*--imgsz 32 x 32"):
        latent_shape(folder).of((30, 32))


def test_what_is_no_autoencoder_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="holds no autoencoder"):
        latent_shape(tmp_path)
    stated = json.loads((folder / "config.json").read_text("utf-8"))

    def write(**more: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps({**stated, **more}), "utf-8")

    write(_class_name="UNet2DModel")
    with pytest.raises(WeightsError, match="describes UNet2DModel"):
        latent_shape(tmp_path)
    write(shift_factor=0.1)
    with pytest.raises(WeightsError, match="shifted"):
        latent_shape(tmp_path)
    write()
    with pytest.raises(WeightsError, match="cannot be read"):
        Autoencoder(tmp_path)
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(WeightsError, match="no JSON"):
        latent_shape(tmp_path)
