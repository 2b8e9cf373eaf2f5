"""Files of DETR: the settings of its network, and the task of its head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.layers.frozen_resnet import EXPANSION
from vitrail.models.detr import DetrConfig
from vitrail.weights.conventions import Conventions
from vitrail.weights.infer_config import Peek, want
from vitrail.weights.rules import LacksError, Table, rename_keys
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import detr as tables

QUERIES = "model.query_position_embeddings.weight"
HUB = frozenset({QUERIES, "model.input_projection.weight", "class_labels_classifier.weight"})
"""Tensors of transformers' files, any two of which no other network has."""

HEADS = 8
"""Heads of published networks; they do not follow from tensors."""

DILATED = "dc5"
"""What the names of files have in them whose last map has the stride of the third; no tensor tells."""

AREAS = 200
"""From so many classes on, the classes of a file with masks are those of COCO's panoptic segments, areas among them."""

SURE, COVERED = 0.85, 0.2
"""The confidence from which the authors keep a segment, and how much of it others may cover (their §4.4)."""


class Found(NamedTuple):
    """A file of DETR: its tensors with one spelling, its table, and what its head answers."""

    tensors: Mapping[str, Tensor]
    table: Table
    task: str
    settings: Mapping[str, Any]
    classes: int
    hub: bool


def look(tensors: Mapping[str, Tensor]) -> Found | None:
    """Return a file of DETR, or None for other files."""
    renamed = rename_keys(tensors, tables.SPELLINGS)
    hub = len(HUB & renamed.keys()) > 1
    official = (
        "query_embed.weight" in renamed
        and "transformer.decoder.layers.0.multihead_attn.in_proj_weight" in renamed
    )
    if not (hub or official):
        return None
    layer = "class_labels_classifier.weight" if hub else "class_embed.weight"
    answers = renamed.get(layer)
    if answers is None:
        raise WeightsError(f"The file lacks {layer} of DETR; it is incomplete.")
    classes = len(answers) - 1
    task, settings = "detect", dict[str, Any]()
    if any(name.startswith(("mask_head.", "bbox_attention.")) for name in renamed):
        task = "panoptic" if classes >= AREAS else "instances"
        settings = {"reach": None}
    if task == "panoptic":
        settings = {"merge": "queries", "threshold": SURE, "overlap": COVERED, "least_area": 0}
    return Found(renamed, tables.table(hub=hub), task, settings, classes, hub)


def encoder(
    peek: Peek, conventions: Conventions, said: Said, found: Found, stated: Mapping[str, Any]
) -> DetrConfig:
    """Return the settings of the network; what tensors leave open is stated, or that of the published networks.

    Raises:
        WeightsError: a tensor is missing, or the network computes otherwise than ours.
    """
    _refuse_others(stated)
    project = want(peek, "project.weight")
    stages = [_stage(peek, number) for number in range(1, 5)]
    layers = f"{'model' if found.hub else 'transformer'}"
    pre_norm = peek("norm.weight") is not None
    queries = found.tensors.get(QUERIES if found.hub else "query_embed.weight")
    if queries is None:
        raise LacksError("decoder.queries")
    position: Literal["sine", "learned"] = "learned" if peek("position.rows") is not None else "sine"
    heads = said.heads if isinstance(said.heads, int) else stated.get("encoder_attention_heads") or HEADS
    return DetrConfig(
        _image(conventions, said),
        want(peek, "backbone.conv1.weight").shape[1],
        tuple(count for count, _ in stages),
        tuple(plane for _, plane in stages),
        bool(said.dilated),
        len(project),
        int(heads),
        len(want(peek, "blocks.0.rise.weight")),
        _count(found.tensors, f"{layers}.encoder.layers."),
        _count(found.tensors, f"{layers}.decoder.layers."),
        len(queries),
        position,
        pre_norm,
    )


def dilated(path: Path, stated: Mapping[str, Any]) -> bool | None:
    """Return whether the last map has the stride of the third, as a config.json or the name of a file says; or None."""
    if stated:
        backbone = stated.get("backbone_config") or {}
        return bool(stated.get("dilation")) or backbone.get("output_stride") == 16
    return True if DILATED in path.name.lower() else None


def stride_line(config: Any, said: Said) -> str | None:
    """Return a note if nobody states the stride of the last map."""
    if config.family != DetrConfig.family or said.dilated is not None:
        return None
    return (
        f"its last map is taken at stride 32: no one says otherwise, as {DILATED!r} in the name of the file or "
        "--network dilated=true would"
    )


def _refuse_others(stated: Mapping[str, Any]) -> None:
    for name, ours in (("activation_function", "relu"), ("position_embedding_type", "sine")):
        if stated.get(name, ours) != ours:
            raise WeightsError(f"This DETR has {name} = {stated[name]!r}, and ours {ours!r}; it is not read.")


def _stage(peek: Peek, number: int) -> tuple[int, int]:
    """Return the number of blocks of a stage of the ResNet, and the width of their 3 x 3 convolutions."""
    first = want(peek, f"backbone.layer{number}.0.conv2.weight")
    if len(want(peek, f"backbone.layer{number}.0.conv3.weight")) != EXPANSION * len(first):
        raise WeightsError(f"The blocks of this ResNet do not widen by {EXPANSION}; it is not read.")
    count = 0
    while peek(f"backbone.layer{number}.{count}.conv2.weight") is not None:
        count += 1
    return count, len(first)


def _image(conventions: Conventions, said: Said) -> int | tuple[int, int]:
    """Return the size of the images in pixels: stated, or that of the published networks."""
    prepared = conventions.preprocessing.image if conventions.preprocessing else None
    return said.image or prepared or DetrConfig().image


def _count(tensors: Mapping[str, Tensor], before: str) -> int:
    return len({name[len(before) :].split(".")[0] for name in tensors if name.startswith(before)})
