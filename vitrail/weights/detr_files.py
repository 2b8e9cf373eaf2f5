"""Files of DETR: which network they hold, with the sizes of its heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.models.detr import DetrConfig
from vitrail.weights import rules
from vitrail.weights.conventions import Conventions, of_hub
from vitrail.weights.infer_config import Peek
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import detr as tables

HEADS = 8
"""Heads of all published networks, of width 256."""

DILATED = "dc5"
"""What the names of files with a dilated ResNet have in them."""

FIXED: Mapping[str, Any] = {"activation_function": "relu", "position_embedding_type": ("sine", "learned")}
"""Settings of a config.json with their only values here."""

PREPROCESSOR: Mapping[str, Any] = {
    "image_processor_type": "DetrImageProcessor",
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "resample": 2,
}
"""How the authors prepare images, as transformers writes it."""


class Found(NamedTuple):
    """A file of DETR: its tensors with canonical names, their table, and what is stated."""

    tensors: Mapping[str, Tensor]
    table: Table
    masks: bool
    classes: int
    dilated: bool | None
    heads: int | None


def look(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Found | None:
    """Return a file of DETR, or None for those of other networks.

    Raise WeightsError for a file without a head, and for one whose network computes otherwise than ours.
    """
    hub = any(name.endswith("model.query_position_embeddings.weight") for name in tensors)
    official = any(
        name.endswith("transformer.decoder.layers.0.multihead_attn.in_proj_weight") for name in tensors
    )
    first = next((name for name in tensors if name.endswith("query_embed.weight")), None)
    if not hub and not (official and first):
        return None
    named = rules.rename_keys(tensors, tables.SPELLINGS) if hub else tensors
    masks = any(name.startswith("mask_head.") for name in named)
    table = tables.table(hub=hub, masks=masks)
    answers = _peek(table, named)("classes.bias")
    if answers is None:
        raise WeightsError("The file lacks the classes of DETR; it is incomplete.")
    _check(config)
    return Found(named, table, masks, len(answers) - 1, _dilated(path, config), _stated_heads(config))


def encoder(peek: Peek, conventions: Conventions, said: Said, found: Found) -> DetrConfig:
    """Return the settings of the network and its heads."""
    ours = _peek(found.table, found.tensors)
    width, hidden = len(_want(ours, "project.bias")), len(_want(ours, "blocks.0.rise.bias"))
    stages = range(1, 5)
    size = said.image or (conventions.preprocessing and conventions.preprocessing.image) or DetrConfig().size
    return DetrConfig(
        size,
        _want(ours, "backbone.conv1.weight").shape[1],
        tuple(_count(ours, f"backbone.layer{n}.{{}}.conv1.weight") for n in stages),
        tuple(len(_want(ours, f"backbone.layer{n}.0.conv1.weight")) for n in stages),
        bool(said.dilated),
        width,
        _heads(ours, said, width),
        hidden,
        _count(ours, "blocks.{}.norm1.weight"),
        _count(ours, "decoder.layers.{}.norm1.weight"),
        len(_want(ours, "decoder.queries")),
        "sine" if ours("position.rows") is None else "learned",
        ours("norm.weight") is not None,
    )


def stride_line(config: Any, said: Said) -> str | None:
    """Return a note if nobody states the stride of the last map, which follows from no tensor."""
    if config.family != DetrConfig.family or said.dilated is not None:
        return None
    return (
        f"its last map is taken at stride 32: no one says otherwise, as {DILATED!r} in the name of the file or "
        "--network dilated=true would"
    )


def authors(conventions: Conventions) -> Conventions:
    """Return the conventions of its authors, with their preprocessing."""
    return Conventions(conventions.name, conventions.gelu, conventions.resize, of_hub(PREPROCESSOR))


def _heads(ours: Peek, said: Said, width: int) -> int:
    """Return the number of heads: that of the shares of attention that the masks read, or stated, or the usual."""
    joined = ours("masks.steps.0.bias")
    if joined is not None:
        return max(1, len(joined) - width)
    return said.heads if isinstance(said.heads, int) else HEADS


def _stated_heads(config: Mapping[str, Any]) -> int | None:
    heads = config.get("detr", {}).get("nheads")
    return heads if isinstance(heads, int) else None


def _dilated(path: Path, config: Mapping[str, Any]) -> bool | None:
    stated = config.get("detr", {}).get("dilation")
    if stated is not None:
        return bool(stated)
    if config.get("model_type") == "detr":
        backbone = config.get("backbone_config") or {}
        return bool(config.get("dilation")) or backbone.get("output_stride") == 16
    return True if DILATED in path.name.lower() else None


def _check(config: Mapping[str, Any]) -> None:
    for name, known in FIXED.items():
        values = known if isinstance(known, tuple) else (known,)
        if config.get(name, values[0]) not in values:
            raise WeightsError(
                f"This DETR has {name} = {config[name]!r}, and ours {values[0]!r}; it is not read."
            )
    heads = {str(config.get(f"{part}_attention_heads", HEADS)) for part in ("encoder", "decoder")}
    if len(heads) > 1:
        raise WeightsError(
            f"This DETR has {' and '.join(sorted(heads))} heads in encoder and decoder, and ours the same in "
            "both; it is not read."
        )


def _peek(table: Table, tensors: Mapping[str, Tensor]) -> Peek:
    """Return a function that finds our tensors of encoder and head."""
    both = (table, Table(table.name, table.head))

    def look_up(name: str) -> Tensor | None:
        found = (rules.peek(one, tensors, name) for one in both)
        return next((tensor for tensor in found if tensor is not None), None)

    return look_up


def _count(ours: Peek, name: str) -> int:
    count = 0
    while ours(name.format(count)) is not None:
        count += 1
    return count


def _want(ours: Peek, name: str) -> Tensor:
    tensor = ours(name)
    if tensor is None:
        raise WeightsError(f"The file lacks what we call {name}; it belongs to another kind of network.")
    return tensor
