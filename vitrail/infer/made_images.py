"""Images that a model makes of its classes: from noise, or from another image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from PIL.Image import Image

from vitrail import plots
from vitrail.core.errors import RunError, SettingError, UnknownNameError
from vitrail.core.text import command
from vitrail.data.labels import shorten
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import count_params
from vitrail.tasks.generate.prediction import pixels_of
from vitrail.tasks.generate.sampling import Making
from vitrail.tasks.image_makers import MakesImages

BLOCK = 8
"""Images that are made together. A block is always whole: float32 rounds otherwise in batches of another size."""

LARGE = 50_000_000
"""From so many parameters on, images are made one by one."""


def making_of(predictor: Predictor, stated: Mapping[str, Any] = MappingProxyType({})) -> Making:
    """Return how a model makes images: as it states, with other `steps`, `sampler`, `guidance` or `strength`.

    Raises:
        RunError: the model makes no images.
        SettingError: a value is out of range.
    """
    maker_of(predictor)
    return Making.of(predictor.task.settings).changed(stated)


def maker_of(predictor: Predictor) -> MakesImages:
    """Return the task of a model that makes images. RunError, with the way out, for another model."""
    if not isinstance(predictor.task, MakesImages):
        raise RunError(
            f"{predictor.called} was trained for {predictor.task.name} and makes no images. Train a model that does: "
            f"{command('train', 'photos/', '--task', 'generate')}"
        )
    return predictor.task


def place_of(predictor: Predictor, name: str) -> int:
    """Return the number of a class. UnknownNameError, with the nearest name, for one that the model does not know."""
    if name not in predictor.labels:
        see = f"There are: {shorten(predictor.labels, 12)}."
        raise UnknownNameError("class", name, predictor.labels, see)
    return predictor.labels.index(name)


def made_images(
    predictor: Predictor,
    name: str,
    n: int,
    seed: int = 0,
    *,
    making: Making | None = None,
    image: Any = None,
) -> Iterator[Image]:
    """Yield `n` images of a class in RGB or grey, of the size of the network's input.

    Image i of a seed is the same for every n and class, as far as its noise goes. `image` is a path, source, Pillow
    image or array to begin from; of it the part that the network sees is changed.

    Raises:
        RunError: the model makes no images.
        UnknownNameError: it does not know the class.
        DataError: the image cannot be read.
    """
    making = making or making_of(predictor)
    label = place_of(predictor, name)
    if n < 1:
        raise SettingError(f"--n {n}: give the number of images, 1 or more.")
    task, steps = maker_of(predictor), predictor.preprocess
    start = torch.zeros(steps.channels, *steps.size) if image is None else predictor.ready(image).pixels
    # Nothing is left of an image at a strength of 1.
    making = replace(making, strength=1.0) if image is None else making
    block = 1 if count_params(predictor.network) >= LARGE else BLOCK
    for first in range(0, n, block):
        numbers = range(first, first + block)
        with torch.inference_mode():
            made = task.made(predictor.network, label, seed, numbers, making, start)
        for pixels in pixels_of(made)[: n - first]:
            yield plots.of_array(pixels)
