"""Small rasters with named bands, and models with random weights that make maps of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine, from_origin

from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.layers.encoder import Encoder
from vitrail.models.factory import describe
from vitrail.models.vit import ViT, ViTConfig
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import answer

BANDS = ("VV", "B04", "B08")
UNITS = ("dB", "reflectance", "reflectance")
MEAN, STD = (-12.0, 0.2, 0.3), (4.0, 0.1, 0.1)
LABELS = ("bog", "fen", "water")
UTM = from_origin(500_000, 5_000_000, 10, 10)


def values(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return bands (height, width, 3) in their units."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(height, width, 3)) * STD + MEAN).astype(np.float32)


def write(
    path: Path,
    array: np.ndarray,
    names: Sequence[str] = BANDS,
    crs: str | None = "EPSG:32633",
    transform: Affine = UTM,
    **profile: object,
) -> Path:
    """Write an array (height, width, bands) as a GeoTIFF; NaN is no data."""
    height, width, count = array.shape
    stated = {"dtype": "float32", "nodata": np.nan, **profile}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, crs=crs, transform=transform, **stated
    ) as made:  # fmt: skip
        made.write(array.transpose(2, 0, 1))
        made.descriptions = tuple(names)
    return path


def steps(window: int = 8, size: int = 8) -> Preprocess:
    """Return the steps of a model of windows."""
    bands = tuple(
        Band(name, unit, mean - 2.3 * std, mean + 2.3 * std)
        for name, unit, mean, std in zip(BANDS, UNITS, MEAN, STD, strict=True)
    )
    return Preprocess(
        (size, size), "squash", 1.0, MEAN, STD, 3, scale=1.0, bands=bands, window=window, pixel=10.0
    )


def vit(size: int = 8, patch: int = 4) -> Encoder:
    """Return a tiny ViT of three bands."""
    return ViT(ViTConfig(image=size, patch=patch, width=24, depth=2, heads=2, channels=3))


def model(folder: Path, encoder: Encoder, preprocess: Preprocess, task: str = "classify", **settings) -> Path:
    """Write a model file with random weights."""
    torch.manual_seed(3)
    made = build_task(task, LABELS, settings)
    network = build_network(encoder, made).eval()
    for weight in network.head.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    header = Header(
        name="random",
        encoder=describe(encoder),
        task={"name": made.name, "labels": list(made.labels), "settings": made.settings.model_dump()},
        preprocess=preprocess.to_dict(),
        proof=answer(network, made, preprocess),
    )
    path = folder / "model.safetensors"
    write_model(path, network, header)
    return path
