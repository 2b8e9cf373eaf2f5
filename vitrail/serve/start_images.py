"""Images with which a server checks and times a model when it starts: those of its run, or generated ones."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from vitrail.core.errors import VitrailError
from vitrail.data.manifest import VAL
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import Reader, readers_of, root_of, usable
from vitrail.runs.run import open_run

CHECKED = 48
"""Images with which backends are checked, as for `vitrail predict --latency`."""

GENERATED = 12
"""Images that are generated where the run has none."""


def check_images(predictor: Predictor, model: str) -> tuple[list[Reader], bool]:
    """Return readers of validation images of the run; without them of generated images, and False."""
    try:
        run = open_run(model)
        return usable(readers_of(run, root_of(run), (VAL,), predictor.preprocess, CHECKED)), True
    except (VitrailError, OSError):
        steps = predictor.preprocess
        return [partial(generated, number, steps) for number in range(GENERATED)], False


def generated(number: int, steps: Preprocess) -> Any:
    """Return an image as a model reads it, like a photograph: no file of the user's is here.

    It is (375, 500, channels), or for windows of a raster (window, window, bands) with values two deviations around
    the mean of each band.
    """
    image = _photograph(number, steps.channels)
    if not steps.bands:
        return (image.astype(np.float32) * (steps.scale / 255)) if steps.raw else image
    mean, std = np.asarray(steps.mean), np.asarray(steps.std)
    values = (steps.scale * (mean + (image / 63.75 - 2) * std)).astype(np.float32)
    return values[: steps.window, : steps.window] if steps.window else values


def _photograph(number: int, channels: int = 3) -> Any:
    """Return smooth shapes with some noise, uint8 (375, 500, channels), the same for the same number."""
    rng = np.random.default_rng(number)
    coarse = rng.random((6, 8, channels))
    rows, cols = np.linspace(0, 4.99, 375), np.linspace(0, 6.99, 500)
    top, left = rows.astype(int), cols.astype(int)
    down, right = (rows - top)[:, None, None], (cols - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    smooth = upper * (1 - down) + lower * down
    return np.clip(255 * smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def file_of(image: Any) -> bytes:
    """Return an image as a file: a JPEG, or an array of NumPy where a JPEG cannot hold it."""
    buffer = io.BytesIO()
    if image.dtype == np.uint8 and image.shape[2] == 3:
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
    else:
        np.save(buffer, image)
    return buffer.getvalue()
