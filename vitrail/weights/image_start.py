"""Weights of an image network as the start of a TimeSformer (Bertasius et al. 2021, arXiv:2102.05095, and its code).

The image network becomes the attention over space, the attention over time begins as a copy of it, and W_fc and the
table of frames are 0: before training every frame is seen as the image network would see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.core import catalog
from vitrail.core.errors import WeightsError
from vitrail.models.factory import changed, config_of, presets_of
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import preset_of
from vitrail.weights.read_request import CLASSIFY, Read
from vitrail.weights.rules import Loaded

FAMILIES = ("vit", "deit", "dinov2", "mae")
"""Families whose blocks are those of a TimeSformer, apart from the attention over time."""

SAME = ("patch", "width", "depth", "heads")
"""Settings in which both networks must agree."""

TIME = ("frames", "attention")
"""Settings of the network for clips that a user may state with weights of an image network."""


OF_CLIPS = ("time_embed", "time_embeddings", "time.table")
"""What names of tensors end with in a file of a TimeSformer."""


def wanted_of(opened: Opened, model: str | None, network: Mapping[str, Any]) -> TimeSformerConfig | None:
    """Return the network for clips that the user names, if the file holds no such network itself; else None."""
    if not model or catalog.family_of(model) != TimeSformerConfig.family:
        return None
    if any(name.endswith(OF_CLIPS) for name in opened.tensors):
        return None
    stated = {name: value for name, value in network.items() if name in TIME}
    wanted: TimeSformerConfig = changed(config_of(model), stated)
    return wanted


def image_network(model: str) -> str:
    """Return our image network whose weights start a network for clips; of another network its own name."""
    if catalog.family_of(model) != TimeSformerConfig.family:
        return model
    wanted = config_of(model)
    alike = (name for name, one in presets_of("vit").items() if not _apart(one, wanted))
    return next(alike, model)


def over_time(found: Read, wanted: TimeSformerConfig, name: str) -> Read:
    """Return the weights of an image network, called `name`, as those of a TimeSformer with these settings.

    Factors of layer scale are multiplied into the projections that they follow; a distillation token is left out.
    Raise WeightsError if the networks do not agree.
    """
    config = found.config
    if config.family == wanted.family:
        return found
    _check(config, wanted, name)
    made = replace(
        wanted,
        image=config.image,
        channels=config.channels,
        hidden=config.hidden,
        gelu=getattr(config, "gelu", "exact"),
        resize=getattr(config, "resize", "bicubic"),
        norm_eps=config.norm_eps,
    )
    encoder = _with_class_place(_unscaled(found.weights.encoder), config)
    line = f"the weights of an image network ({preset_of(config) or config.family}) start the attention over space"
    head = found.weights.head if _same_head(found) else {}
    return found._replace(
        config=made,
        weights=Loaded(encoder | _time(encoder, made), dict(head)),
        pool=None,
        task=CLASSIFY,
        settings={},
        labels=found.labels if head else (),
        clips=None,
        assumed=(*found.assumed, line),
    )


def _check(config: Any, wanted: TimeSformerConfig, name: str) -> None:
    """Raise WeightsError for an image network whose blocks are not those of the network for clips."""
    more = any(getattr(config, name, None) for name in ("stem", "registers", "pooled"))
    plain = getattr(config, "mlp", "gelu") == "gelu" and "cls" in getattr(config, "prefix", ("cls",))
    placed = getattr(config, "position", "1d") in ("1d", "1d_patches", "sine")
    if config.family not in FAMILIES or more or not plain or not placed:
        raise WeightsError(
            f"{name} holds a {config.family}, which cannot start a TimeSformer. Choose a plain ViT, DeiT, MAE or "
            "DINOv2 without registers, or put it over the frames: --model with its own name, and --frames."
        )
    if apart := _apart(config, wanted):
        lines = ", ".join(f"{one} {getattr(config, one)} and not {getattr(wanted, one)}" for one in apart)
        raise WeightsError(
            f"{name} holds an image network with {lines}. Choose weights of a network of the same size, "
            "or another TimeSformer: vitrail models 'timesformer*'"
        )


def _apart(config: Any, wanted: TimeSformerConfig) -> list[str]:
    """Return the settings in which two networks do not agree."""
    apart = [one for one in SAME if getattr(config, one) != getattr(wanted, one)]
    return apart + ["hidden"] * ((config.hidden or 4 * config.width) != (wanted.hidden or 4 * wanted.width))


def _unscaled(encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of blocks whose factors of layer scale are part of the projections that they follow."""
    out = {key: tensor for key, tensor in encoder.items() if not key.endswith(".gamma")}
    for number, layer in (("1", "attention.out"), ("2", "mlp.fall")):
        for key, gamma in encoder.items():
            if key.endswith(f".scale{number}.gamma"):
                front = key.removesuffix(f"scale{number}.gamma") + layer
                out[f"{front}.weight"] = encoder[f"{front}.weight"] * gamma[:, None]
                out[f"{front}.bias"] = encoder[f"{front}.bias"] * gamma
    return out


def _with_class_place(encoder: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Return the tensors with one class token, which has a row among the positions."""
    tokens, table = encoder["prefix.tokens"], encoder["position.table"]
    if getattr(config, "position", "1d") == "1d_patches":
        places = torch.cat([torch.zeros_like(table[:, :1]), table], 1)
    else:
        places = torch.cat([table[:, :1], table[:, tokens.shape[1] :]], 1)
    return encoder | {"prefix.tokens": tokens[:, :1].contiguous(), "position.table": places}


def _time(encoder: Mapping[str, Tensor], made: TimeSformerConfig) -> dict[str, Tensor]:
    """Return the tensors of the attention over time: copies of those over space, W_fc and the table of frames 0."""
    if made.attention == "space":
        return {}
    like = encoder["norm.weight"]
    out = {"time.table": like.new_zeros(1, made.frames, made.width)}
    for block in range(made.depth if made.attention == "divided" else 0):
        front = f"blocks.{block}"
        for part in ("weight", "bias"):
            out[f"{front}.time.norm.{part}"] = encoder[f"{front}.norm1.{part}"].clone()
            for layer in ("qkv", "out"):
                source = encoder[f"{front}.attention.{layer}.{part}"]
                out[f"{front}.time.attention.{layer}.{part}"] = source.clone()
        out[f"{front}.time.project.weight"] = like.new_zeros(made.width, made.width)
        out[f"{front}.time.project.bias"] = like.new_zeros(made.width)
    return out


def _same_head(found: Read) -> bool:
    """Return whether the classifier reads the class token alone, as that of a TimeSformer does."""
    plain = found.weights.head.keys() == {"linear.weight", "linear.bias"}
    return plain and found.task == CLASSIFY and found.pool in (None, "cls") and found.config.family != "mae"
