"""Files of EoMT: which layout they have, their task, and the settings of their network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from math import isqrt
from typing import Any, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from vitrail.models.eomt import EoMTConfig
from vitrail.weights import hub_folder, infer_config, rules
from vitrail.weights.conventions import Conventions
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import Peek
from vitrail.weights.rules import LacksError, Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import eomt

HUB = frozenset(
    {"query.weight", "class_predictor.weight", "mask_head.fc1.weight", "upscale_block.block.0.conv1.weight"}
)
OFFICIAL = frozenset({"q.weight", "class_head.weight", "mask_head.0.weight", "upscale.0.conv1.weight"})
"""Tensors of transformers' and of the authors' files, any two of which no other network has."""

TASKS = {"semantic": "segment", "instance": "instances", "panoptic": "panoptic"}
"""Words in the names of published files → the task of their head."""

QUERIES_OF_AREAS = 100
"""Queries of published networks for areas; those for objects have twice as many."""

THINGS_OF_COCO = 80
"""Classes of published networks for objects without stuff."""


class Found(NamedTuple):
    """A file of EoMT: its table, its tensors, the function from shapes to settings, its task, and assumptions.

    `processor` describes the preprocessing as transformers does, empty if it is not known.
    """

    table: Table
    tensors: Mapping[str, Tensor]
    infer: Any
    official: bool
    task: str
    processor: Mapping[str, Any]
    assumed: tuple[str, ...]


def look(opened: Opened, tensors: Mapping[str, Tensor]) -> Found | None:
    """Return what a file of EoMT holds, or None for another file. WeightsError for one on DINOv3."""
    names = tensors.keys()
    official = any(len({f"{front}{name}" for name in OFFICIAL} & names) > 1 for front in ("", "network."))
    if not official and len(HUB & names) < 2:
        return None
    filled = {
        name: tensor for name, tensor in tensors.items() if tensor.numel()
    }  # no registers: none of 0 rows
    if official:
        filled = rules.rename_keys(filled, eomt.SPELLINGS)
    upscale, masks, places = eomt.OFFICIAL_PARTS if official else eomt.HUB_PARTS
    if places not in filled:
        raise WeightsError(f"{opened.path} {hub_folder.REASONS['eomt_dinov3']}")
    upscales = sum(bool(re.fullmatch(upscale, name)) for name in filled)
    table = eomt.official(upscales) if official else eomt.hub(upscales, eomt.mlp_of(filled))
    kept = filled.get(masks)
    infer = partial(settings, upscales=upscales, query_blocks=_query_blocks(opened, kept))
    head = next(rule for rule in table.head if rule.ours == "classes.weight")
    if head.sources[0] not in filled:
        raise WeightsError(f"{opened.path} lacks {head.sources[0]} of EoMT; it is incomplete.")
    task, notes = _task(opened, rules.peek(table, filled, "blocks.queries"), len(filled[head.sources[0]]) - 1)
    if kept is not None and bool(kept.any()):
        notes = (
            *notes,
            "it was saved while it trained with attention within masks, and answers here without",
        )
    processor = opened.preprocessing or (_of_authors(filled, task) if official else {})
    return Found(table, filled, infer, official, task, processor, notes)


def settings(
    peek: Peek, conventions: Conventions, said: Said, *, upscales: int, query_blocks: int | None
) -> EoMTConfig:
    """Return the settings of the weights of an EoMT."""
    queries = peek("blocks.queries")
    if queries is None:
        raise LacksError("blocks.queries")
    if query_blocks is None:
        raise WeightsError(
            "does not say before how many blocks its queries join. Put its config.json, with num_blocks, beside it"
        )
    column = infer_config.dinov2(peek, conventions, said)
    assert isinstance(column.patch, int)
    return EoMTConfig(
        image=column.image,
        patch=column.patch,
        channels=column.channels,
        width=column.width,
        depth=column.depth,
        heads=column.heads,
        hidden=column.hidden,
        mlp=column.mlp,
        registers=column.registers,
        queries=queries.shape[1],
        query_blocks=query_blocks,
        upscales=upscales,
    )


def _query_blocks(opened: Opened, masks: Tensor | None) -> int | None:
    """Return how many blocks have queries: a file states one probability of masks for each."""
    stated = opened.config.get("num_blocks")
    return stated if isinstance(stated, int) else None if masks is None else len(masks)


def _of_authors(tensors: Mapping[str, Tensor], task: str) -> dict[str, Any]:
    """Return the preprocessing of the authors: windows of a square for areas, else an image padded to a square."""
    patch = tensors[f"{eomt.BACKBONE}patch_embed.proj.weight"].shape[-1]
    side = isqrt(tensors[f"{eomt.BACKBONE}pos_embed"].shape[-2]) * patch
    areas = task == "segment"
    return {
        "image_processor_type": "EomtImageProcessor",
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "size": {"shortest_edge": side, "longest_edge": None if areas else side},
        "resample": 2,
        "do_split_image": areas,
        "do_pad": not areas,
    }


def _task(opened: Opened, queries: Tensor | None, classes: int) -> tuple[str, tuple[str, ...]]:
    """Return the task of the head, and a sentence if it was guessed from numbers."""
    header = json.loads(opened.metadata.get("vitrail_network", "{}"))
    written = str((header.get("task") or {}).get("name"))
    if written in TASKS.values():
        return written, ()
    named = " ".join((str(opened.path), str(opened.config.get("_name_or_path", ""))))
    words: list[str] = re.findall(f"_({'|'.join(TASKS)})_", named)
    if words:
        return TASKS[words[-1]], ()
    count = 0 if queries is None else queries.shape[1]
    areas = count == QUERIES_OF_AREAS or bool(opened.preprocessing.get("do_split_image"))
    task = "segment" if areas else "instances" if classes == THINGS_OF_COCO else "panoptic"
    return task, (
        f"the task {task} follows from its {count} queries and {classes} classes; a folder whose name holds "
        "_semantic_, _instance_ or _panoptic_ states it",
    )
