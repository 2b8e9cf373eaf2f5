"""Keras' weights-only `.h5` files: read without Keras, recognised as a WetMapFormer, and written.

A file has a group for each layer; in it are tensors by names such as `conv2d_3/kernel:0`. Only WetMapFormer is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import MissingExtraError, WeightsError
from vitrail.layers.band_extractor import FILTERS
from vitrail.models.wetmapformer import WetMapFormerConfig
from vitrail.weights.conventions import Preprocessing
from vitrail.weights.tables import keras

FORMAT: Mapping[str, str] = MappingProxyType({"format": "keras"})
"""The metadata of an opened file of Keras."""

LEAST_DEVIATION = 1e-7
"""Keras' normalization divides by no smaller number."""

STATISTICS = ("mean", "variance", "count")
"""The tensors of Keras' normalization."""

NO_SHARE = 1024
"""The head width that is written for no attention as published: wider than the second stage, as in the large one."""

AS_PUBLISHED = (
    "the network as its authors' notebook builds it, with attention over one pixel and MLPs without hidden units "
    "(as_published)"
)

LOW = "its authors give pixels without data, and values below -1000, the value -1; here missing data is the mean"


def _h5py() -> Any:
    try:
        return import_module("h5py")
    except ImportError as error:
        raise MissingExtraError(
            "Files of Keras (.h5) need the package h5py, which is not installed: pip install 'vitrail[raster]'"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an HDF5 file as layer/weight, without `:0`; of a whole model its weights alone.

    Raise WeightsError for a file of Keras 3 or without tensors; OSError if the file is truncated.
    """
    h5py = _h5py()
    found: dict[str, Tensor] = {}
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if "vars" in root or "_layer_checkpoint_dependencies" in root or "layers" in root:
            raise WeightsError(
                f"{path} is a file of Keras 3, whose layers have no names. Save the weights with Keras 2, in which the "
                "notebook runs: model.save_weights('weights.h5')"
            )

        def look(name: str, part: Any) -> None:
            if isinstance(part, h5py.Dataset) and part.dtype.kind in "fiu":
                words = name.split("/")
                layer = words[-2] if len(words) > 1 else ""
                found[f"{layer}/{words[-1].partition(':')[0]}"] = torch.from_numpy(part[...])

        root.visititems(look)
    if not found:
        raise WeightsError(f"{path} is an HDF5 file without weights of Keras; name another file.")
    return found


class Found(NamedTuple):
    """A WetMapFormer in a file: its settings, its tensors with the names of a fresh session, preprocessing, notes."""

    config: WetMapFormerConfig
    tensors: dict[str, Tensor]
    preprocessing: Preprocessing | None
    notes: tuple[str, ...]


def look(tensors: Mapping[str, Tensor]) -> Found:
    """Return the WetMapFormer in the tensors of a file of Keras; raise WeightsError if it is another network."""
    ours = {name: tensor for name, tensor in tensors.items() if _word(name) not in STATISTICS}
    named = canonical({name: tensor for name, tensor in ours.items() if tensor.numel()})
    if "conv3d/kernel" not in named or "separable_conv2d/depthwise_kernel" not in named:
        some = ", ".join(sorted({name.partition("/")[0] for name in ours})[:4])
        raise WeightsError(
            f"It is a file of Keras, of another network than WetMapFormer (its layers: {some}, …), which is not read. "
            "Save that network in PyTorch."
        )
    config = settings(named)
    _check(config, ours, named)
    notes = (AS_PUBLISHED,) if config.as_published else ()
    return Found(config, named, preprocessing(tensors, config.channels), notes)


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the numbers of a fresh session, where the counters of a kind of layers begin at 0."""
    layers: dict[str, list[int]] = {}
    for kind, number in sorted({numbered(name.partition("/")[0]) for name in tensors}):
        layers.setdefault(kind, []).append(number)
    out = {}
    for name, tensor in tensors.items():
        layer, _, weight = name.partition("/")
        kind, number = numbered(layer)
        out[f"{keras.numbered(kind, layers[kind].index(number))}/{weight}"] = tensor
    return out


def settings(named: Mapping[str, Tensor]) -> WetMapFormerConfig:
    """Return the settings of a WetMapFormer from its tensors with the names of a fresh session."""
    kernels = _in_order(named, "conv2d", "kernel")
    step = next((i for i, kernel in enumerate(kernels) if kernel.shape[:2] == (2, 2)), None)
    if step is None or step < 3:
        raise WeightsError(
            "It lacks the convolution conv2d of 2 x 2 pixels between the stages; save it again."
        )
    tables = _in_order(named, "multi_head_relative_positional_kernel_bias", "positional_embedding")
    widths = (kernels[2].shape[3], kernels[step].shape[3])
    rise = named.get("dense/kernel")  # of the MLP in the first block, which has convolutions
    published = rise is None
    head_dim = widths[1] // len(tables[0]) if tables else NO_SHARE if published else 0
    return WetMapFormerConfig(
        channels=len(named.get("batch_normalization/gamma", ())) // FILTERS[1],
        widths=widths,
        depths=((step - 3) // 2, len(tables) or (len(kernels) - step - 1) // 2),
        head_dim=head_dim,
        kernel=3 if published or not tables else (round(tables[0].shape[1] ** 0.5) + 1) // 2,
        hidden=4 if rise is None else rise.shape[1] // rise.shape[0],
        as_published=published,
    )


def preprocessing(tensors: Mapping[str, Tensor], channels: int) -> Preprocessing | None:
    """Return the normalization of a file as preprocessing of raw images, or None if the file has none that fits."""
    found = {
        _word(name): tensor.flatten().double()
        for name, tensor in tensors.items()
        if _word(name) in STATISTICS
    }
    mean, variance = found.get("mean"), found.get("variance")
    if mean is None or variance is None or not len(mean) == len(variance) == channels:
        return None
    std = variance.sqrt().clamp(min=LEAST_DEVIATION)
    return Preprocessing(
        tuple(mean.tolist()),
        tuple(std.tolist()),
        image=(8, 8),
        fit="squash",
        crop_fraction=1.0,
        interpolation="bilinear",
        scale=1.0,
        apart=(LOW,),
    )


def write(
    path: Path, config: WetMapFormerConfig, tensors: Mapping[str, Tensor], stated: Preprocessing | None
) -> None:
    """Write the tensors of `tables.keras.table` as Keras' weights-only file, with the names of a fresh session.

    Raise WeightsError without a mean and deviation for each band, which the file holds.
    """
    if stated is None or len(stated.mean) != config.channels:
        raise WeightsError(
            "A file of Keras holds the mean and the variance of each band, and these weights state none. "
            "Use --to vitrail."
        )
    mean, std = (
        torch.tensor(values, dtype=torch.float64) * stated.scale for values in (stated.mean, stated.std)
    )
    groups: dict[str, dict[str, Tensor]] = {
        "data_augmentation": {"mean": mean.float(), "variance": (std**2).float(), "count": torch.tensor(0)}
    }
    counts: Counter[str] = Counter()
    full: Counter[str] = Counter()
    for layer in keras.layers(config):
        weights = keras.WEIGHTS[layer.kind]
        source = keras.numbered(layer.keras, full[layer.keras])
        full[layer.keras] += bool(weights)
        name = keras.numbered(layer.keras, counts[layer.keras])
        counts[layer.keras] += 1
        group = {f"{name}/{one.theirs}": tensors[f"{source}/{one.theirs}"] for one in weights}
        width = config.widths[int(layer.ours.split(".")[1])] if layer.kind.startswith("dense ") else 0
        if layer.kind == "dense empty":
            group = {f"{name}/kernel": torch.zeros(width, 0), f"{name}/bias": torch.zeros(0)}
        if layer.kind == "dense bias":
            group = {f"{name}/kernel": torch.zeros(0, width), **group}
        groups[name] = group
    if "predictions/kernel" in tensors:
        groups["predictions"] = {name: tensors[name] for name in ("predictions/kernel", "predictions/bias")}
    _write_groups(path, groups)


def _write_groups(path: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    with _h5py().File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in groups]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for name, tensors in groups.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{one}:0".encode() for one in tensors]
            for one, tensor in tensors.items():
                group.create_dataset(f"{one}:0", data=tensor.numpy())


def _check(config: WetMapFormerConfig, ours: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> None:
    """Raise WeightsError if the file has another number of layers of a kind than its network."""
    wanted = Counter(layer.keras for layer in keras.layers(config) if keras.WEIGHTS[layer.kind])
    there = Counter(numbered(name)[0] for name in {name.partition("/")[0] for name in named})
    for kind, count in wanted.items():
        if there[kind] != count:
            numbers = sorted(n for k, n in (numbered(name.partition("/")[0]) for name in ours) if k == kind)
            gaps = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if numbers else []
            lost = f" ({', '.join(keras.numbered(kind, gap) for gap in gaps)} is missing)" if gaps else ""
            raise WeightsError(
                f"It has {there[kind]} layers {kind} where a WetMapFormer of {config.depths[0]} + {config.depths[1]} "
                f"blocks has {count}{lost}; save the weights of the whole network again."
            )


def _in_order(named: Mapping[str, Tensor], kind: str, weight: str) -> list[Tensor]:
    found: list[Tensor] = []
    while (tensor := named.get(f"{keras.numbered(kind, len(found))}/{weight}")) is not None:
        found.append(tensor)
    return found


def numbered(layer: str) -> tuple[str, int]:
    """Return the kind and the number of a layer: conv2d_3 is conv2d, 3, and conv2d is conv2d, 0."""
    match = re.fullmatch(r"(.+?)_(\d+)", layer)
    return (match[1], int(match[2])) if match else (layer, 0)


def _word(name: str) -> str:
    return name.rpartition("/")[2]
