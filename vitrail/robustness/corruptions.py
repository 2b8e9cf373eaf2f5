"""Eight corruptions in three severities: Hendrycks and Dietterich 2019, arXiv:1903.12261, §3. Pillow, NumPy, SciPy.

The severities are their 1, 3 and 5. For inputs of up to 64 pixels the parameters are those of CIFAR-10-C, which was
made at 32 pixels, for larger ones those of ImageNet-C, made at 224; lengths (the radii of the blurs) grow with the
input. The motion blur shifts by whole pixels; theirs is ImageMagick's, which does too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import SettingError, UnknownNameError

Pixels = NDArray[np.float64]
"""An image of 0 … 1: (height, width, channels)."""

SMALL = 64
"""Largest side, in pixels, of an input that counts as small: as in `Preprocess.for_size`."""

SEVERITIES = (1, 2, 3)


class Table(NamedTuple):
    """The parameters of one corruption in its three severities: for photographs, and for small inputs."""

    photographs: tuple[Any, Any, Any]
    small: tuple[Any, Any, Any]


class Setting(NamedTuple):
    """What a corruption is done with: its parameter, the factor of lengths, a random generator, and for which table."""

    parameter: Any
    scale: float
    draw: Generator
    small: bool


Corruption = Callable[[Pixels, Setting], Pixels]


def corrupt(kind: str, severity: int, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return an 8-bit image (height, width, channels) with a corruption of severity 1, 2 or 3; alpha stays.

    The same seed draws the same noise in every severity.

    Raises:
        UnknownNameError: there is no such corruption.
        SettingError: there is no such severity, or the image is not of 8 bits in grey or colour.
    """
    if kind not in KINDS:
        raise UnknownNameError("corruption", kind, KINDS, f"There are: {', '.join(KINDS)}.")
    if severity not in SEVERITIES:
        raise SettingError(f"There is no severity {severity}. Choose 1, 2 or 3.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in {1, 3, 4}:
        raise SettingError(
            f"Corruptions are for images of 8 bits in grey or colour, not {image.dtype} of shape {image.shape}."
        )
    change, table = KINDS[kind]
    small = max(image.shape[:2]) <= SMALL
    scale = min(image.shape[:2]) / (32 if small else 224)
    parameter = (table.small if small else table.photographs)[severity - 1]
    colours = image[..., :3] if image.shape[2] == 4 else image
    changed = change(colours / 255.0, Setting(parameter, scale, np.random.default_rng(seed), small))
    rounded = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return np.concatenate([rounded, image[..., 3:]], 2) if image.shape[2] == 4 else rounded


def _gaussian_noise(image: Pixels, how: Setting) -> Pixels:
    noise: Pixels = how.draw.normal(size=image.shape)
    return image + float(how.parameter) * noise


def _shot_noise(image: Pixels, how: Setting) -> Pixels:
    photons: Pixels = how.draw.poisson(image * how.parameter) / how.parameter
    return photons


def _defocus_blur(image: Pixels, how: Setting) -> Pixels:
    """Convolve with a disk whose edge is smoothed.

    Radii of CIFAR-10-C are no whole numbers. Those of ImageNet-C are, and between two of them lies their mean.
    """
    radius, smoothing = how.parameter[0] * how.scale, how.parameter[1]
    reach = math.ceil(radius) + 3
    if how.small:
        disk = _disk(radius, reach)
    else:
        part = radius - math.floor(radius)
        disk = (1 - part) * _disk(math.floor(radius), reach) + part * _disk(math.ceil(radius), reach)
    near = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    bell = np.exp(-(near**2) / (2 * smoothing**2))
    return _convolved(image, _smoothed(disk, bell / bell.sum()))


def _disk(radius: float, reach: int) -> Pixels:
    """Return equal weights within a radius, with sum 1: (2 · reach + 1, 2 · reach + 1)."""
    at = np.arange(-reach, reach + 1)
    inside = (at[:, None] ** 2 + at[None] ** 2 <= radius**2).astype(np.float64)
    weights: Pixels = inside / inside.sum()
    return weights


def _smoothed(kernel: Pixels, bell: Pixels) -> Pixels:
    from scipy.ndimage import convolve1d

    once = convolve1d(kernel, bell, axis=0, mode="constant")
    twice: Pixels = convolve1d(once, bell, axis=1, mode="constant")
    return twice


def _convolved(image: Pixels, kernel: Pixels) -> Pixels:
    """Convolve each channel with a symmetric kernel; the image is mirrored at its borders."""
    from scipy.signal import fftconvolve

    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    found: Pixels = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return found


def _motion_blur(image: Pixels, how: Setting) -> Pixels:
    """Add up shifted copies along a direction of -45 to 45 degrees, with weights that fall like half a Gaussian."""
    radius, sigma = (part * how.scale for part in how.parameter)
    angle = math.radians(how.draw.uniform(-45, 45))
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    reach = len(steps)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    blurred = np.zeros_like(image)
    for step, weight in zip(steps, weights, strict=True):
        top, left = (reach + round(step * part) for part in (math.sin(angle), math.cos(angle)))
        blurred += weight * padded[top : top + height, left : left + width]
    return blurred


def _brightness(image: Pixels, how: Setting) -> Pixels:
    """Raise the value of hue, saturation and value: the largest channel, and the others in proportion."""
    value = image.max(2, keepdims=True)
    raised = np.minimum(value + how.parameter, 1)
    factor = np.divide(raised, value, out=np.zeros_like(value), where=value > 0)
    raised_all: Pixels = np.where(value > 0, image * factor, raised)
    return raised_all


def _contrast(image: Pixels, how: Setting) -> Pixels:
    mean: Pixels = image.mean((0, 1), keepdims=True)
    return (image - mean) * float(how.parameter) + mean


def _pixelate(image: Pixels, how: Setting) -> Pixels:
    height, width = image.shape[:2]
    fewer = (max(1, int(width * how.parameter)), max(1, int(height * how.parameter)))
    small = _pillow(image).resize(fewer, Image.Resampling.BOX)
    return _pixels(small.resize((width, height), Image.Resampling.BOX))


def _jpeg(image: Pixels, how: Setting) -> Pixels:
    file = io.BytesIO()
    _pillow(image).save(file, "JPEG", quality=how.parameter)
    with Image.open(file) as opened:
        return _pixels(opened)


def _pillow(image: Pixels) -> Image.Image:
    values = np.rint(image * 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if image.shape[2] == 1 else values)


def _pixels(image: Image.Image) -> Pixels:
    values = np.asarray(image) / 255.0
    return values[..., None] if values.ndim == 2 else values


KINDS: Mapping[str, tuple[Corruption, Table]] = MappingProxyType(
    {
        "Gaussian noise": (_gaussian_noise, Table((0.08, 0.18, 0.38), (0.04, 0.08, 0.10))),
        "shot noise": (_shot_noise, Table((60, 12, 3), (500, 100, 50))),
        "defocus blur": (
            _defocus_blur,
            Table(((3, 0.1), (6, 0.5), (10, 0.5)), ((0.3, 0.4), (0.5, 0.6), (1.5, 0.1))),
        ),
        "motion blur": (_motion_blur, Table(((10, 3), (15, 8), (20, 15)), ((6, 1), (6, 2), (9, 2.5)))),
        "brightness": (_brightness, Table((0.1, 0.3, 0.5), (0.05, 0.15, 0.3))),
        "contrast": (_contrast, Table((0.4, 0.2, 0.05), (0.75, 0.4, 0.15))),
        "pixelate": (_pixelate, Table((0.6, 0.4, 0.25), (0.95, 0.85, 0.65))),
        "JPEG": (_jpeg, Table((25, 15, 7), (80, 58, 40))),
    }
)
"""Name → the corruption and its parameters."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("Gaussian noise", "shot noise"),
        "blur": ("defocus blur", "motion blur"),
        "light": ("brightness", "contrast"),
        "lost detail": ("pixelate", "JPEG"),
    }
)
"""The kinds of corruptions that are drawn as one line."""
