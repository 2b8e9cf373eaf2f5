"""Fit the kernels of the first layer, the only ones that depend on the channels, to other channels.

Without names, the mean of the kernels over the colours stands for each of N channels, times 3/N: the sum of the colour
kernels for one channel, so that a grey image gives the output of R = G = B.

Named bands are matched by meaning. With kernels K_c of C known channels (red, green and blue, or the bands that the
weights state), band i of N gets

    W_i = C/N · K_c            if band i means channel c (B04 and red, say)
    W_i = C/N · (1/C) Σ_c K_c  otherwise

so that N equal bands give the activations of C equal channels, at any N. The other custom, timm's, repeats the
kernels in the order of the channels (R, G, B, R, G, B …, times 3/N). It has the same size, but which band meets which
colour then follows from the order of a file: blue of B02, B03, B04 would meet the kernels of red, and the infrared
those of whatever colour is next. A mean has no opinion on colours, which is right for a band that has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.data.labels import shorten
from vitrail.data.rasters.bands import colour_of
from vitrail.layers.encoder import Encoder
from vitrail.models.factory import build

COLOUR_NAMES = ("red", "green", "blue")


@torch.no_grad()
def fit_channels(tensors: dict[str, Tensor], encoder: Encoder) -> None:
    """Adapt kernels to the number of channels, with the same kernel for each of them.

    Raises:
        WeightsError: something else than the number of channels differs.
    """
    for name, wanted in encoder.state_dict().items():
        kernel = tensors[name]
        if kernel.shape == wanted.shape:
            continue
        if not _is_kernel(kernel, wanted):
            raise WeightsError(
                f"{name} is {tuple(kernel.shape)} in the weights and {tuple(wanted.shape)} in the network: "
                "these weights fit only their own image size; do not change the size."
            )
        total = kernel.sum(1, keepdim=True)
        tensors[name] = total.expand_as(wanted) / wanted.shape[1]


@torch.no_grad()
def fit_bands(tensors: dict[str, Tensor], config: Any, bands: Sequence[str], known: Sequence[str]) -> None:
    """Adapt the kernels of a network with this `config` to named bands; `known` are those that the weights state.

    Raises:
        WeightsError: more than one convolution depends on the channels, so that bands cannot be told apart in it.
    """
    if tuple(bands) == tuple(known):
        return
    for name, shape in _of_channels(config).items():
        kernel = tensors[name]
        if (
            len(shape) != 4
            or shape[1] != len(bands)
            or not _is_kernel(kernel, torch.empty(shape, device="meta"))
        ):
            raise WeightsError(
                f"Weights of {config.family} cannot be adapted to {shorten(bands)}: {name} mixes channels and pixels. "
                "Choose another network, or start from nothing: --weights none."
            )
        tensors[name] = adapted(kernel, bands, known)


def adapted(kernel: Tensor, bands: Sequence[str], known: Sequence[str] = ()) -> Tensor:
    """Return a kernel (d, channels, ph, pw) for named bands, (d, len(bands), ph, pw); the formula is in the module.

    `known` are the names of its channels; without names, three of them are red, green and blue.
    """
    channels = kernel.shape[1]
    mean = kernel.mean(1)
    chosen = [mean if place is None else kernel[:, place] for place in meanings(bands, known, channels)]
    return torch.stack(chosen, 1) * (channels / len(bands))


def meanings(
    bands: Sequence[str], known: Sequence[str] = (), channels: int = len(COLOUR_NAMES)
) -> list[int | None]:
    """Return for each band the channel of the weights that means the same, or None."""
    if known:
        names = {name.casefold(): place for place, name in enumerate(known)}
        return [names.get(band.casefold()) for band in bands]
    return [colour_of(band) if channels == len(COLOUR_NAMES) else None for band in bands]


def said_of_bands(bands: Sequence[str], known: Sequence[str] = ()) -> str:
    """Return a sentence on what bands take of weights whose bands are `known` (empty: red, green and blue)."""
    names = known or COLOUR_NAMES
    pairs = list(zip(bands, meanings(bands, known), strict=True))
    own = [f"{band} ({names[place]})" for band, place in pairs if place is not None]
    others = [band for band, place in pairs if place is None]
    whose = "of the same bands" if known else "of these colours"
    parts = [f"{shorten(own, most=6)} {'takes' if len(own) == 1 else 'take'} the kernels {whose}"] * bool(own)
    mean = f"the mean of {shorten(names, most=6)}"
    verb = "" if own else " takes" if len(others) == 1 else " take"
    parts += [f"{shorten(others, most=6)}{verb} {mean}"] * bool(others)
    return f"{', '.join(parts)}."


def _of_channels(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that depend on the number of channels."""
    with torch.device("meta"):
        here, more = (
            build(one).state_dict() for one in (config, replace(config, channels=config.channels + 1))
        )
    return {name: tuple(t.shape) for name, t in here.items() if t.shape != more[name].shape}


def _is_kernel(kernel: Tensor, wanted: Tensor) -> bool:
    """Tell whether two convolutions differ at most in the number of channels."""
    if kernel.ndim != 4 or wanted.ndim != 4:
        return False
    return (len(kernel), *kernel.shape[2:]) == (len(wanted), *wanted.shape[2:])
