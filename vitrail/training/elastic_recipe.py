"""Choose the operating points (input sizes and shares of kept tokens) for elastic training."""

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
    """Return the recipe with its task wrapped for elastic training, if the user, the recipe or the network asks for it.

    Without --elastic, a task that cannot follow a teacher is not wrapped. Sizes and shares that the recipe states
    are kept (`stated`). `encoder` is on the meta device; it is used to test which sizes it accepts.

    Raises:
        SettingError: --elastic is given, and the network, the task or the kind of training has only one cost.
    """
    whole = recipe.training.tune not in {"draft", "head"}
    follows = hasattr(load("task", recipe.task.name), "follow")
    if elastic is None and not (whole and follows):
        return recipe
    if elastic is None:
        elastic = bool(stated) or encoder.elastic
    if not elastic:
        return recipe
    if not whole:
        raise SettingError(
            f"--elastic trains the whole network, and --tune {recipe.training.tune} keeps it frozen. "
            "Use --tune full, or --weights none."
        )
    if not follows:
        why = (
            "A network with a --teacher is trained for one cost"
            if recipe.task.name == DISTILL
            else f"The task {recipe.task.name!r} is trained for one cost"
        )
        raise SettingError(f"{why}. Leave --elastic out.")
    settings = {**_operating_points(recipe, encoder), **stated}
    if not settings["sizes"] and not settings["keeps"]:
        raise SettingError(
            f"{recipe.model.name} takes one input size and needs all its tokens, so it has one cost. "
            "Leave --elastic out, or choose a supervit or a vit."
        )
    wrapped = wrap(ELASTIC, settings, recipe.task.name, recipe.task.settings)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update=wrapped)})


def costs_of(recipe: Recipe) -> list[str]:
    """Return one line about the operating points of an elastic recipe; no line for another recipe."""
    settings = recipe.task.settings
    if recipe.task.name != ELASTIC:
        return []
    sizes = len(settings["sizes"]) + 1
    keeps = ", ".join(f"{keep:g}" for keep in (*settings["keeps"], 1))
    return [
        f"trained for {sizes * (len(settings['keeps']) + 1)} costs at once: {sizes} input sizes, and tokens kept at "
        f"{keeps}; a step computes up to four of them, so it takes longer"
    ]


def _operating_points(recipe: Recipe, encoder: Encoder) -> dict[str, Any]:
    sides = getattr(encoder.config, "sides", SIDES)
    size = recipe.model.imgsz
    sizes = smaller_sizes(size, encoder.spec.unit, sides) if can_resize(encoder.spec) else ()
    return {
        "sizes": [list(smaller) for smaller in sizes if _accepts(encoder, smaller)],
        "keeps": list(KEEPS) if can_keep(encoder) else [],
    }


def _accepts(encoder: Encoder, size: tuple[int, int]) -> bool:
    set_keep(encoder, 1.0)
    try:
        with torch.device("meta"), torch.no_grad():
            encoder(torch.zeros(1, encoder.config.channels, *size))
    except SettingError:
        return False
    return True
