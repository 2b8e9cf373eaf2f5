"""Open an encoder for inspection: from a run, a model file, weights, or a network of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.catalog import family_of
from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError
from vitrail.core.text import command
from vitrail.data.changed_images import load_unchanged, load_unchanged_clip
from vitrail.data.manifest import VAL, Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.whole_file import decode_for
from vitrail.infer.clips import clip_for
from vitrail.infer.inputs import expand
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.infer.proof_images import spread
from vitrail.layers.encoder import Encoder
from vitrail.runs.device import device_for
from vitrail.runs.model_source import is_ours
from vitrail.runs.run import open_run
from vitrail.weights.preprocessing import answering_preprocess
from vitrail.weights.resolve import find_weights

IMAGES = 32
"""Largest number of images for the mean attention distance."""

FEWEST = 4
"""Smallest number of images, however large they are."""

PAIRS = 8_000_000
"""Largest number of patch pairs over all images: 32 images of 224 px with patches of 14 use a quarter of it; at 518 px
(1,369 patches per image) it allows 4 images."""


class Opened(NamedTuple):
    """An encoder, how images are prepared for it, and its name."""

    name: str
    encoder: Encoder
    preprocess: Preprocess


def open_encoder(model: str, device: str = "auto") -> Opened:
    """Open an encoder by run folder, model file, checkpoint, name of a checkpoint, or name of a network.

    A network's name stands for its best available weights; a randomly initialized network is never opened.

    Raises:
        RunError, WeightsError: it cannot be opened; the message says why.
    """
    path = expanded(model)
    refuse_exported(path)
    if is_ours(path):
        predictor = Predictor(path, device)
        return Opened(predictor.header.name, predictor.network.encoder, predictor.preprocess)
    found = find_weights("auto", model) if family_of(model) and not path.exists() else find_weights(model)
    encoder = found.build().to(device_for(device)).requires_grad_(False)
    return Opened(found.name, encoder, answering_preprocess(found))


def looked_at(opened: Opened) -> int:
    """Return the number of images for the mean attention distance: fewer if images have many patches."""
    stride = opened.encoder.spec.strides[-1]
    patches = (opened.preprocess.size[0] // stride) * (opened.preprocess.size[1] // stride)
    pairs = max(1, opened.preprocess.frames) * max(1, patches) ** 2
    return min(IMAGES, max(FEWEST, PAIRS // pairs))


def batches(opened: Opened, pictures: Iterable[str]) -> Iterator[Tensor | str]:
    """Yield the first images of files, folders, patterns and zip files, prepared, one at a time.

    For an image that cannot be read the error is yielded, and the next image replaces it.
    """
    left = looked_at(opened)
    steps = opened.preprocess
    for source in expand(pictures, clips=steps.frames > 0):
        try:
            if steps.frames:
                picture = clip_for(steps, source).frames
            else:
                picture = decode_for(steps, source.open(), source.called)
        except DataError as error:
            yield str(error)
            continue
        yield torch.as_tensor(opened.preprocess.eval(picture)[0])[None]
        left -= 1
        if not left:
            return


def own_batches(opened: Opened, model: str) -> Iterator[Tensor | str]:
    """Yield a run's own validation images, prepared, one at a time; nothing if `model` is not a run.

    For an image that cannot be read, or that changed since the run, the error is yielded.

    Raises:
        DataError: the images of the run were moved; the message asks for others.
    """
    if not (Path(model) / "recipe.yaml").is_file():
        return
    run, way_out = open_run(model), f"Name images: {command('inspect', model, 'IMAGES')}"
    try:
        manifest = run.manifest(run.root())
    except RunError:
        raise DataError(f"{model} no longer records where its images are. {way_out}") from None
    if not manifest.root.is_dir():
        raise DataError(f"The images of {model} are no longer in {manifest.root}. {way_out}")
    rows = manifest.rows(VAL)
    if not rows:
        raise DataError(f"{model} has no validation images. {way_out}")
    for row in spread(rows, looked_at(opened)):
        steps = opened.preprocess
        try:
            picture = _unchanged(manifest.root, row, steps)
        except DataError as error:
            yield str(error)
            continue
        yield torch.as_tensor(opened.preprocess.eval(picture)[0])[None]


def _unchanged(root: Path, row: Row, steps: Preprocess) -> NDArray[Any]:
    """Return the decoded image or clip of a row; DataError if it changed since the run."""
    if steps.frames:
        return load_unchanged_clip(root, row, steps.frames, steps.channels)
    return load_unchanged(root, row, steps.channels, raw=steps.raw, bands=steps.band_names).image
