"""Latents: the autoencoder in whose numbers a DiT works (Rombach et al. 2022, arXiv:2112.10752), in diffusers' layout.

Its encoder makes 4 numbers of every 8 x 8 pixels, its decoder makes pixels of them again. It is never trained here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import MissingExtraError, SettingError, WeightsError

USUAL_SCALE = 0.18215
"""The factor of the latents in configs that state none: that of the autoencoder of the published DiTs."""

KIND = "AutoencoderKL"
"""diffusers' class of such an autoencoder."""

CONFIG = "config.json"


class LatentShape(NamedTuple):
    """What an autoencoder makes of images, as its config says: channels, pixels to a side of a cell, and the scale.

    Latents are multiplied with `scale`, so that their deviation is about 1.
    """

    channels: int
    stride: int
    scale: float
    pixels: int  # channels of the images

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of latents for images of (height, width).

        SettingError for a size that the cells do not tile.
        """
        height, width = size
        if height % self.stride or width % self.stride:
            near = " x ".join(str(max(1, round(side / self.stride)) * self.stride) for side in size)
            raise SettingError(
                f"An autoencoder with cells of {self.stride} pixels does not tile {height} x {width} pixels. Use "
                f"--imgsz {near}, the nearest size."
            )
        return height // self.stride, width // self.stride


def latent_shape(folder: Path) -> LatentShape:
    """Return what the autoencoder in a folder makes of images; a folder of a whole pipeline has it in `vae`.

    Raises:
        WeightsError: there is no such folder, or its config.json is that of another network.
    """
    config = _config(folder)
    if config.get("shift_factor") is not None or config.get("latents_mean") is not None:
        raise WeightsError(
            f"{folder} holds an autoencoder whose latents are shifted, unlike those of DiT. Use one of Stable "
            "Diffusion 1 or 2, such as sd-vae-ft-ema."
        )
    try:
        return LatentShape(
            int(config.get("latent_channels", 4)),
            2 ** (len(config["block_out_channels"]) - 1),
            float(config.get("scaling_factor") or USUAL_SCALE),
            int(config.get("in_channels", 3)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder}: {CONFIG} is incomplete ({error}); copy it again.") from error


class Autoencoder:
    """An autoencoder by the path of its folder, on one device, in evaluation mode and without gradients."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.shape = latent_shape(folder)
        self.network = _opened(_home(folder)).to(device)

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the latents of images from -1 to 1: (b, 3, height, width) -> (b, channels, row, col), scaled.

        Without `noise`, which has the shape of the latents, it is the mean of their distribution; with it a draw.
        """
        found = self.network.encode(images).latent_dist
        latents: Tensor = found.mean if noise is None else found.mean + found.std * noise
        return latents * self.shape.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of scaled latents: (b, channels, row, col) -> (b, 3, height, width), about -1 to 1."""
        images: Tensor = self.network.decode(latents / self.shape.scale).sample
        return images


class Space:
    """Where a network makes images: in pixels, or in the latents of an autoencoder, which is opened at first use."""

    def __init__(self, vae: str) -> None:
        self.folder = Path(vae).expanduser() if vae else None
        self.opened: Autoencoder | None = None

    @property
    def pixels(self) -> bool:
        """Whether it is the pixels themselves."""
        return self.folder is None

    def of(self, size: tuple[int, int], channels: int) -> tuple[tuple[int, int], int]:
        """Return size and channels of what a network sees of images of this size and number of channels.

        Raises:
            SettingError: the autoencoder takes other images.
            WeightsError: the folder holds no autoencoder.
        """
        if self.folder is None:
            return size, channels
        shape = latent_shape(self.folder)
        if channels != shape.pixels:
            raise SettingError(
                f"The autoencoder in {self.folder} takes images of {shape.pixels} channels, not {channels}. Leave vae "
                "out to work in pixels."
            )
        return shape.of(size), shape.channels

    def enter(self, images: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Return what a network sees of images (b, c, height, width) from -1 to 1; with `rng` latents are drawn."""
        if self.folder is None:
            return images
        noise = None
        if rng is not None:
            (row, col), channels = self.of((images.shape[2], images.shape[3]), images.shape[1])
            drawn = rng.standard_normal((len(images), channels, row, col), np.float32)
            noise = torch.from_numpy(drawn).to(images.device)
        return self._autoencoder(self.folder, images.device).encode(images.float(), noise)

    def leave(self, x: Tensor) -> Tensor:
        """Return the images, about -1 to 1, of what `enter` returns."""
        return x if self.folder is None else self._autoencoder(self.folder, x.device).decode(x.float())

    def _autoencoder(self, folder: Path, device: torch.device) -> Autoencoder:
        if self.opened is None:
            self.opened = Autoencoder(folder)
        self.opened.network.to(device)
        return self.opened


def _home(folder: Path) -> Path:
    """Return the folder of the autoencoder itself."""
    return folder / "vae" if (folder / "vae" / CONFIG).is_file() else folder


def _config(folder: Path) -> dict[str, Any]:
    path = _home(folder) / CONFIG
    if not path.is_file():
        raise WeightsError(
            f"{folder} holds no autoencoder. Name a folder with {CONFIG} and diffusion_pytorch_model.safetensors, as "
            "diffusers saves it."
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON; copy it again.") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != KIND:
        raise WeightsError(f"{path} describes {kind or 'no network'}, not an {KIND}; name another folder.")
    return dict(config)


def _opened(folder: Path) -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise MissingExtraError(
            f"The autoencoder in {folder} needs diffusers: pip install 'vitrail[latents]'."
        ) from error
    try:
        opened: Any = AutoencoderKL  # its own methods have no types
        network = opened.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"The autoencoder in {folder} cannot be read ({reason}); copy it again."
        ) from error
    return network.eval().requires_grad_(False)
