"""Whether a training is one for several costs at once, and for which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from vitrail.core.errors import SettingError
from vitrail.layers.elastic import KEEPS, SIDES, can_keep, can_resize, set_keep, smaller_sizes
from vitrail.layers.encoder import Encoder
from vitrail.runs.recipe import Recipe

ELASTIC: Mapping[str, str] = MappingProxyType(
    {
        "classify": "elastic",
        "classify_multi": "elastic_multi",
        "elastic": "elastic",
        "elastic_multi": "elastic_multi",
    }
)
"""A task → the same, trained for several costs."""


def dialled(recipe: Recipe, encoder: Encoder, elastic: bool | None) -> Recipe:
    """Return the recipe with its task trained for several costs, where that is wanted: a supervit wants it.

    A supervit whose task has no such form is trained as any network. Sizes and shares that the recipe states stay.
    `encoder` says on the meta device what it takes.

    Raises:
        SettingError: the network, the task or the kind of training has no such dial.
    """
    whole = recipe.training.tune not in {"draft", "head"}
    if elastic is None and (not whole or recipe.task.name not in ELASTIC):
        return recipe
    if not (encoder.config.family == "supervit" if elastic is None else elastic):
        return recipe
    if not whole:
        raise SettingError(
            f"--elastic trains the whole network, and --tune {recipe.training.tune} leaves it as it is. "
            "Say --tune full, or --weights none."
        )
    if recipe.task.name not in ELASTIC:
        raise SettingError(f"--elastic is not for the task {recipe.task.name!r}; leave it out.")
    settings = {**_dial(recipe, encoder), **recipe.task.settings}
    if not settings["sizes"] and not settings["keeps"]:
        raise SettingError(
            f"{recipe.model.name} takes one size and needs all its tokens, so it has one cost. "
            "Leave --elastic out, or take a supervit or a vit."
        )
    task = recipe.task.model_copy(update={"name": ELASTIC[recipe.task.name], "settings": settings})
    return recipe.model_copy(update={"task": task})


def _dial(recipe: Recipe, encoder: Encoder) -> dict[str, Any]:
    sides = getattr(encoder.config, "sides", SIDES)
    size = recipe.model.imgsz
    sizes = smaller_sizes(size, encoder.spec.strides[-1], sides) if can_resize(encoder.spec) else ()
    return {
        "sizes": [list(one) for one in sizes if _takes(encoder, one)],
        "keeps": list(KEEPS) if can_keep(encoder) else [],
    }


def _takes(encoder: Encoder, size: tuple[int, int]) -> bool:
    set_keep(encoder, 1.0)
    try:
        with torch.device("meta"), torch.no_grad():
            encoder(torch.zeros(1, encoder.config.channels, *size))
    except SettingError:
        return False
    return True
