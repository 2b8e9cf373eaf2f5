"""Whether a training is one for several costs at once, and for which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from vitrail.core.catalog import DISTILL, ELASTIC, load
from vitrail.core.errors import SettingError
from vitrail.layers.elastic import KEEPS, SIDES, can_keep, can_resize, set_keep, smaller_sizes
from vitrail.layers.encoder import Encoder
from vitrail.runs.recipe import Recipe
from vitrail.runs.task_wrapping import wrap

NOTHING: Mapping[str, Any] = MappingProxyType({})


def with_operating_points(
    recipe: Recipe, encoder: Encoder, elastic: bool | None, stated: Mapping[str, Any] = NOTHING
) -> Recipe:
    """Return the recipe with its task trained for several costs, where the user, the recipe or the network wants it.

    Where the user does not say so, a task that cannot follow a teacher is trained as it is. Sizes and shares that
    the recipe states stay (`stated`). `encoder` says on the meta device what it takes.

    Raises:
        SettingError: the network, the task or the kind of training has no such dial.
    """
    whole = recipe.training.tune not in {"draft", "head"}
    follows = hasattr(load("task", recipe.task.name), "follow")
    if elastic is None and not (whole and follows):
        return recipe
    if not ((bool(stated) or encoder.elastic) if elastic is None else elastic):
        return recipe
    if not whole:
        raise SettingError(
            f"--elastic trains the whole network, and --tune {recipe.training.tune} leaves it as it is. "
            "Say --tune full, or --weights none."
        )
    if not follows:
        why = (
            "A network that learns from a --teacher is trained for one cost"
            if recipe.task.name == DISTILL
            else f"The task {recipe.task.name!r} is trained for one cost"
        )
        raise SettingError(f"{why}; leave --elastic out.")
    settings = {**_dial(recipe, encoder), **stated}
    if not settings["sizes"] and not settings["keeps"]:
        raise SettingError(
            f"{recipe.model.name} takes one size and needs all its tokens, so it has one cost. "
            "Leave --elastic out, or take a supervit or a vit."
        )
    wrapped = wrap(ELASTIC, settings, recipe.task.name, recipe.task.settings)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update=wrapped)})


def costs_of(recipe: Recipe) -> list[str]:
    """Return in a line for how many costs a recipe trains; none where it is one."""
    settings = recipe.task.settings
    if recipe.task.name != ELASTIC:
        return []
    sizes = len(settings["sizes"]) + 1
    keeps = ", ".join(f"{keep:g}" for keep in (*settings["keeps"], 1))
    return [
        f"trained for {sizes * (len(settings['keeps']) + 1)} costs at once: {sizes} input sizes, and tokens kept at "
        f"{keeps}; a step computes up to four of them, so it takes longer"
    ]


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
