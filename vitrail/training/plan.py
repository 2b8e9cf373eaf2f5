"""Decides what a user did not say: network, input size, recipe, precision, micro-batch; and says why."""

from __future__ import annotations

from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import torch

from vitrail.core.config import read_mapping
from vitrail.data.manifest import Manifest
from vitrail.data.prepare import Prepared
from vitrail.data.source import load
from vitrail.layers.encoder import Encoder
from vitrail.models.create import create_encoder
from vitrail.runs.options import TrainOptions, image_size, seconds
from vitrail.runs.recipe import Recipe, compose, merge

TINY = 64
"""Pictures whose short side is at most this many pixels get a network made for small pictures."""


class Planned(NamedTuple):
    """A complete recipe and the reasons for what the user left open."""

    recipe: Recipe
    reasons: tuple[str, ...]


def plan(source: str, prepared: Prepared, options: TrainOptions) -> Planned:
    """Fill in what the user did not say from what the pictures are."""
    reasons: list[str] = []
    side = short_side(prepared.manifest)
    model = options.model
    if model is None:
        model = "vit_digits" if side <= TINY else "vit_s16"
        reasons.append(f"network {model}: the pictures are {side} px on their short side")
    with torch.device("meta"):  # only what the network says of itself is asked: no weights are drawn
        encoder = create_encoder(model)
    convolutional = encoder.spec.attention == "none"
    size = image_size(options.imgsz) or _size(encoder, side, reasons)
    usual = _recipe_for(source, convolutional)
    name = options.recipe or usual
    own = _own(source, options, model, size, "squash" if side <= TINY else "crop")
    if name.endswith((".yaml", ".yml")):
        values = {k: v for k, v in read_mapping(Path(name)).items() if k not in {"about", "schema_version"}}
        return Planned(compose(usual, merge(values, own), name), tuple(reasons))
    return Planned(compose(name, own), tuple(reasons))


def _own(source: str, o: TrainOptions, model: str, size: tuple[int, int], fit: str) -> dict[str, Any]:
    """Return what the user said, in the recipe's own shape."""
    mixing = {"mixup": o.mixup, "cutmix": o.cutmix, "smoothing": o.smoothing, "pool": o.pool}
    training = {
        key: getattr(o, key)
        for key in (
            "epochs", "batch", "micro", "lr", "weight_decay", "warmup", "ema", "augment", "erase", "precision",
            "compile", "device", "workers", "patience", "seed",
        )
    }  # fmt: skip
    return {
        "data": {"source": source, "layout": o.layout, "val": o.val, "test": o.test},
        "model": {
            "name": model,
            "imgsz": size,
            "fit": o.fit or fit,
            "drop_path": o.drop_path,
            "weights": o.weights,
        },
        "task": {"settings": {k: v for k, v in mixing.items() if v is not None}},
        "training": {**training, "seconds": seconds(o.time)},
    }


def short_side(manifest: Manifest, most: int = 32) -> int:
    """Return the median short side, in pixels, of some of the kept pictures spread over the manifest."""
    rows = manifest.rows()
    some = rows[:: max(1, len(rows) // most)]
    return int(median_low(min(load(manifest.root, row.path).image.shape[:2]) for row in some))


def _size(encoder: Encoder, side: int, reasons: list[str]) -> tuple[int, int]:
    own = built_for(encoder)
    if encoder.spec.attention == "none" and side < min(own):
        small = min(*own, max(32, -(-side // 32) * 32))
        if small < min(own):
            reasons.append(f"input {small} px: the pictures are {side} px on their short side")
        return small, small
    return own


def built_for(encoder: Encoder) -> tuple[int, int]:
    """Return the image size, in pixels (height, width), that a network is built for."""
    if encoder.config.family == "timm":
        from vitrail.models.timm import input_size

        return input_size(encoder.config)
    image = encoder.config.image
    return image if isinstance(image, tuple) else (image, image)


def _recipe_for(source: str, convolutional: bool) -> str:
    if source == "digits":
        return "digits_cnn" if convolutional else "digits_vit"
    return "cnn_scratch" if convolutional else "scratch_small"
