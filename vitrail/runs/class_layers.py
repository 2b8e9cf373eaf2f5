"""Which tensors of a head have a row for each class; found from the head itself, so that no head has to list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.core.catalog import load
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.runs.network import build_network, build_task, reads_words

FEW = 2
"""Classes of the smaller head that is compared; some tasks need two."""


def class_layers(encoder: Encoder, task: str, settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the tensors with a row for each class, and how many rows they have besides, such as that of "no object".

    Those rows come last. Two heads with different numbers of classes are compared by shape, without any memory.
    """
    if reads_words(task):
        return {}
    few, more = (_rows(encoder, task, settings, count) for count in (FEW, FEW + 1))
    return {name: rows - FEW for name, rows in few.items() if more.get(name) == rows + 1}


def _rows(encoder: Encoder, task: str, settings: Mapping[str, Any], count: int) -> dict[str, int]:
    with torch.device("meta"):
        named = build_task(task, truth_for(task, [f"class {number}" for number in range(count)]), settings)
        head = build_network(encoder, named).head
    return {name: len(tensor) for name, tensor in head.state_dict().items() if tensor.ndim}


def truth_for(task: str, names: Sequence[str], things: Sequence[str] = ()) -> Truth:
    """Return the header of truths with these classes; of a panoptic task without `things` the first is one."""
    kind: str = load("task", task).kind
    if kind != "panoptic":
        return Truth(kind, tuple(names))
    return Truth(kind, tuple(names), things=tuple(things or names[:1]))


def count_classes(head: Mapping[str, Tensor], layers: Mapping[str, int]) -> int:
    """Return the number of classes of a published head: 0 if it has none of these layers, or they do not agree."""
    counts = {len(head[name]) - more for name, more in layers.items() if name in head}
    return counts.pop() if len(counts) == 1 else 0
