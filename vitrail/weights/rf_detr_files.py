"""Files of RF-DETR: which encoder they hold, and with which settings of a task their head is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from types import MappingProxyType
from typing import Any

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.models.rf_detr import PRESETS, RfDetrConfig
from vitrail.weights.conventions import Conventions
from vitrail.weights.infer_config import Peek, want
from vitrail.weights.rules import rename_keys
from vitrail.weights.stated_config import SIZE_WAY_OUT, Said
from vitrail.weights.tables import rf_detr as tables

SIGN = "backbone.0.encoder.encoder.embeddings.cls_token"
"""A tensor that only these files have."""

IN_MEMORY = "backbone.backbone.embeddings.cls_token"
"""The same with transformers' name in memory."""

MASKS = "segmentation_head."
"""Begin of the names of the branch of masks."""

ANCHOR, MARGIN = 0.05, 0.01
"""The side of the boxes that cells start from, and the border of the image where no centre of a cell may lie."""

HEAD_WIDTH = 64
"""Channels of a head of DINOv2."""

FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "activation_function": "silu",
        "decoder_activation_function": "relu",
        "segmentation_head_activation_function": "gelu",
        "mask_downsample_ratio": 4,
        "num_feature_levels": 1,
        "hidden_expansion": 0.5,
        "c2f_num_blocks": 3,
    }
)
"""Settings of a config.json with their only values here."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file or its folder states of the encoder; None and () if not stated."""

    by: str = ""
    windows: int | None = None
    taps: tuple[int, ...] = ()
    image: int | None = None
    attention_heads: int | None = None
    classes: tuple[str, ...] = ()


def canonical(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """Return the tensors with the names of RF-DETR's files, or None for those of other networks."""
    if SIGN in tensors:
        return tensors
    if any(name.endswith(IN_MEMORY) for name in tensors):
        return rename_keys(tensors, tables.SPELLINGS)
    return None


def is_apart(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether the projections of the decoder's self-attention are tensors of their own."""
    return "transformer.decoder.layers.0.self_attn.in_proj_weight" not in tensors


def stated_by(config: Mapping[str, Any]) -> Stated:
    """Return what a config.json of transformers states, or the arguments in a checkpoint of the package rfdetr.

    Raise WeightsError if the head computes otherwise than ours.
    """
    if backbone := config.get("backbone_config"):
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise WeightsError(
                    f"This RF-DETR has {name} = {config[name]!r}, and ours {value!r}; it is not read."
                )
        heads, crossing = (config.get(f"decoder_{kind}_attention_heads") for kind in ("self", "cross"))
        if heads and crossing and crossing != 2 * heads:
            raise WeightsError(
                f"This RF-DETR has {heads} heads among queries and {crossing} to the map, and ours twice as many to "
                "the map; it is not read."
            )
        return Stated("config.json", backbone.get("num_windows"), _taps(backbone), None, heads)
    arguments = config.get("rfdetr") or {}
    return Stated(
        "its arguments" if arguments else "",
        arguments.get("num_windows"),
        tuple(arguments.get("out_feature_indexes") or ()),
        arguments.get("resolution"),
        arguments.get("sa_nheads"),
        tuple(arguments.get("class_names") or ()),
    )


def notes(stated: Stated, classes: int) -> tuple[str, ...]:
    """Return sentences on what the file leaves open."""
    found = []
    if stated.windows is None or not stated.taps:
        found.append(
            "windows and the blocks that the head reads are those of RF-DETR with these patches: no one says"
        )
    if stated.classes and len(stated.classes) != classes:
        # Versions of the package begin at the first or at the second output, and nothing in the file says which.
        found.append(
            f"it names {len(stated.classes)} classes for {classes} outputs, and not which is whose; they are numbered"
        )
    return tuple(found)


def _taps(backbone: Mapping[str, Any]) -> tuple[int, ...]:
    if indices := backbone.get("out_indices"):
        return tuple(indices)
    return tuple(int(name.removeprefix("stage")) for name in backbone.get("out_features") or ())


def encoder(peek: Peek, conventions: Conventions, said: Said, stated: Stated = Stated()) -> RfDetrConfig:
    """Return the settings of the encoder; windows and taps are stated, or those of the preset with these shapes."""
    project, table = want(peek, "embed.project.weight"), want(peek, "position.table")
    width, channels, patch = project.shape[0], project.shape[1], project.shape[3]
    side = isqrt(table.shape[1] - 1)
    if side**2 != table.shape[1] - 1:
        raise WeightsError(
            f"The weights have places for {table.shape[1] - 1}, and no square grid has as many; {SIZE_WAY_OUT}."
        )
    alike, hidden = alike_preset(patch, side), len(want(peek, "blocks.0.mlp.rise.weight"))
    windows = stated.windows or alike.windows
    image, depth = _image(conventions, said, stated, side * patch, patch * windows), _depth(peek)
    return RfDetrConfig(
        image,
        patch,
        channels,
        width,
        depth,
        said.heads if isinstance(said.heads, int) else max(1, width // HEAD_WIDTH),
        None if hidden == 4 * width else hidden,
        windows,
        stated.taps or tuple(tap for tap in alike.taps if tap <= depth) or (depth,),
        None if image == side * patch else side,
    )


def alike_preset(patch: int, side: int) -> RfDetrConfig:
    """Return the settings of the preset with these patches and this side of its position table, or nearly so."""
    same = [preset for preset in PRESETS.values() if preset.patch == patch] or [RfDetrConfig()]
    return next((preset for preset in same if preset.grid == (side, side)), same[-1])


def _image(
    conventions: Conventions, said: Said, stated: Stated, places: int, unit: int
) -> int | tuple[int, int]:
    """Return the size of the images in pixels: stated, or that of the position table, or the nearest in windows."""
    prepared = conventions.preprocessing.image if conventions.preprocessing else None
    resolution = (stated.image, stated.image) if stated.image else None
    preset = next(
        (one.size for one in PRESETS.values() if one.table and one.table * one.patch == places), None
    )
    for size in (said.image, resolution, prepared, (places, places), preset):
        if size is not None and not any(side % unit for side in size):
            return size[0] if size[0] == size[1] else (size[0], size[1])
    return max(1, round(places / unit)) * unit


def settings(tensors: Mapping[str, Tensor], stated: Stated) -> tuple[str, dict[str, Any], int]:
    """Return the task of the head, the settings of the task that rebuild it, and its number of classes.

    Raise WeightsError for a head that ours cannot be.
    """
    if any(".projector.stages.1." in name for name in tensors):
        raise WeightsError("This RF-DETR reads maps of several scales, and ours of one; it is not read.")
    answers, first = tensors.get("class_embed.weight"), "transformer.decoder.layers.0."
    needed = ("class_embed.weight", f"{first}linear1.weight", "refpoint_embed.weight")
    if answers is None or any(name not in tensors for name in needed):
        missing = ", ".join(name for name in needed if name not in tensors)
        raise WeightsError(f"The file lacks {missing} of the head of RF-DETR; it is incomplete.")
    classes, width = answers.shape
    heads = max(1, width // 32)
    if stated.attention_heads not in (None, heads):
        raise WeightsError(
            f"This RF-DETR has {stated.attention_heads} heads in a decoder of width {width}, and ours {heads}; it is "
            "not read."
        )
    groups = _numbers(tensors, "transformer.enc_output.", ".weight")
    found = {
        "width": width,
        "layers": _numbers(tensors, "transformer.decoder.layers.", ".norm1.weight"),
        "hidden": len(tensors[f"{first}linear1.weight"]),
        "points": len(tensors[f"{first}cross_attn.attention_weights.weight"]) // (2 * heads),
        "queries": len(tensors["refpoint_embed.weight"]) // max(1, groups),
        "groups": groups,
        "anchor": ANCHOR,
        "margin": MARGIN,
    }
    if any(name.startswith(MASKS) for name in tensors):
        return "instances", {**found, "reach": None}, classes
    return "detect", found, classes


def _numbers(tensors: Mapping[str, Tensor], before: str, behind: str) -> int:
    count = 0
    while f"{before}{count}{behind}" in tensors:
        count += 1
    return count


def _depth(peek: Peek) -> int:
    count = 0
    while peek(f"blocks.{count}.norm1.weight") is not None:
        count += 1
    return count
