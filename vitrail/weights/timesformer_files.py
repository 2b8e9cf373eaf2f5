"""Files of TimeSformer: those of its authors and of transformers, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.weights import hub_folder, infer_config, rules
from vitrail.weights.conventions import HUGGINGFACE, TIMESFORMER, Conventions, of_hub
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import Peek, want
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import timesformer as tables

HUB = "timesformer"
"""transformers' `model_type`."""

PATCHES = "patch_embed.proj.weight"


class Found(NamedTuple):
    """What a file of TimeSformer holds, with the names of `Layout`."""

    table: Table
    infer: Callable[[Peek, Conventions, Said], Any]
    tensors: Mapping[str, Tensor]
    conventions: Conventions
    said: Said


def look(opened: Opened, tensors: Mapping[str, Tensor]) -> Found | None:
    """Return what a file of TimeSformer holds, or None for another file.

    Its sign is the table of frames. Raise WeightsError for transformers' network without attention over time, which
    computes something else than the authors' one.
    """
    if "time_embed" in tensors and PATCHES in tensors:
        return Found(tables.PLAIN, config_of, _convolved(tensors), TIMESFORMER, Said())
    renamed = rules.rename_keys(tensors, tables.SPELLINGS)
    stated = hub_folder.whole(opened.config)
    if stated.get("model_type") == HUB and stated["attention_type"] == "space_only":
        raise WeightsError(
            f"{opened.path} is {hub_folder.called(stated)} with attention in space only, whose frames do not come "
            "together there; take one with divided or joint attention."
        )
    if "embeddings.time_embeddings" not in renamed:
        return None
    said = hub_folder.said_of(stated) if hub_folder.hub_type(opened.config) else Said()
    steps = of_hub(opened.preprocessing) or TIMESFORMER.preprocessing
    return Found(
        tables.HUB, config_of, renamed, replace(HUGGINGFACE, resize="nearest", preprocessing=steps), said
    )


def config_of(peek: Peek, conventions: Conventions, said: Said) -> TimeSformerConfig:
    """Return the settings of a TimeSformer's weights."""
    c = infer_config.vit(peek, conventions, said)
    if c.position != "1d" or not c.prefix:
        raise WeightsError(
            "TimeSformer has a class token with a place among its positions; the file has not."
        )
    divided = peek("blocks.0.time.norm.weight") is not None
    attention: Literal["divided", "joint"] = "divided" if divided else "joint"
    return TimeSformerConfig(
        image=c.image,
        patch=c.patch if isinstance(c.patch, int) else c.patch[0],
        channels=c.channels,
        frames=want(peek, "time.table").shape[1],
        width=c.width,
        depth=c.depth,
        heads=c.heads,
        hidden=c.hidden,
        attention=attention,
        gelu=c.gelu,
    )


def _convolved(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors with the patch embedding as a convolution; old files have it as a matrix."""
    weight = tensors[PATCHES]
    if weight.ndim != 2:
        return tensors
    side = next((n for n in range(1, weight.shape[1] + 1) if 3 * n * n == weight.shape[1]), 0)
    if not side:
        raise WeightsError(
            f"The patch embedding is a matrix of {weight.shape[1]} columns, which are no square patches of three "
            "channels. Save it as a convolution."
        )
    return {**tensors, PATCHES: weight.view(-1, 3, side, side)}
