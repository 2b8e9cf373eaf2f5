"""Who takes part in a duel: networks by name, each with its weights, its own recipe, and equal augmentation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import UsageError
from vitrail.data.labels import shorten
from vitrail.data.prepare import Prepared
from vitrail.runs.recipe import Recipe
from vitrail.runs.task_settings import settings_class
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.model_choice import ModelChoice, choices
from vitrail.training.adapted_weights import same_bands
from vitrail.training.resolve_recipe import plan
from vitrail.weights.resolve import find_weights

OF_TRAINING = ("augment", "erase")
OF_TASK = ("mixup", "cutmix", "smoothing")
"""Settings of the augmentation, of a recipe's training and of its task, that are equal for all contestants."""


@dataclass(frozen=True)
class Contestant:
    """A network, what it is called here, and the recipe that it is trained by."""

    name: str
    recipe: Recipe

    @property
    def pretrained(self) -> str:
        """The weights that it starts from, by the name that was given; `none` from scratch."""
        return _short(self.recipe.model.weights)


def named(models: str) -> dict[str, ModelChoice]:
    """Return what --models names, each under the name that tables call it.

    Raises:
        UsageError: fewer than two, or one of them twice.
        UnknownNameError: no such network; the error names the nearest.
    """
    found: dict[str, ModelChoice] = {}
    every = choices(models, None)
    again = Counter(map(_label, every))
    for one in every:
        label = _label(one)
        if again[label] > 1 and _stated(one):
            label = f"{label}={_short(one.weights or '')}"
        if label in found:
            raise UsageError(
                f"{label} stands twice in --models. Name each network once, or with other weights: NAME=none"
            )
        found[label] = one
    if len(found) < 2:
        raise UsageError("A comparison takes two networks or more: --models vit_s16,resnet50")
    return found


def _stated(one: ModelChoice) -> bool:
    """Tell whether --models states which weights the network starts from: NAME=WEIGHTS."""
    return one.model is not None and one.text != one.model


def _short(weights: str) -> str:
    """Return weights as they are called, those of a path by its last part."""
    return Path(weights).name if os.path.exists(weights) else weights


def _label(one: ModelChoice) -> str:
    """Return the name of a network, or of a file of weights without its folder and suffix."""
    if one.model:
        return one.model
    path = Path(one.text)
    plain = path.stem if path.suffix else path.name
    return path.resolve().parent.name if plain in {"model", "pytorch_model"} else plain


def planned(
    source: str,
    prepared: Prepared,
    models: str,
    common: TrainOptions,
    own_augmentation: bool = False,
) -> list[Contestant]:
    """Return the contestants with complete recipes; all but their augmentation is each family's own.

    `common` states what all share. Without `own_augmentation` the first one's augmentation is that of all. On rasters
    networks start from nothing unless --models states weights.

    Raises:
        UsageError: weights of other bands without the same network from scratch beside them.
    """
    found: list[Contestant] = []
    shared: dict[str, Any] = {}
    for label, one in named(models).items():
        weights = _weights(one, common, raster=prepared.layout.raster is not None)
        tune = common.tune or (None if weights == "none" or common.recipe else "full")
        options = replace(common, model=one.model, weights=weights, tune=tune, **shared)
        recipe = _recipe(source, prepared, options)
        found.append(Contestant(label, recipe))
        if not own_augmentation and not shared and tune != "draft":
            shared = augmentation_of(recipe)
    _refuse_alone(found, prepared, common.tune == "draft")
    return found


def _weights(one: ModelChoice, common: TrainOptions, *, raster: bool) -> str | None:
    if _stated(one) or one.weights != "auto":
        return one.weights
    return common.weights or ("none" if raster else one.weights)


def _refuse_alone(found: Sequence[Contestant], prepared: Prepared, frozen: bool) -> None:
    """Refuse weights of other bands that nothing measures: the same network from scratch is not beside them."""
    if prepared.layout.raster is None:
        return
    fresh = {one.recipe.model.name for one in found if one.pretrained == "none" and not frozen}
    for one in found:
        name = one.recipe.model.name
        if name in fresh or one.pretrained == "none" or _knows(one):
            continue
        way = "leave --tune draft out" if frozen else f"add {name}=none to --models"
        raise UsageError(
            f"{one.name} starts from weights of other bands. Whether they help is told only by the same network from "
            f"scratch beside it: {way}."
        )


def _knows(one: Contestant) -> bool:
    """Tell whether the weights of a contestant were trained on its bands."""
    model = one.recipe.model
    if not os.path.exists(model.weights):
        return False
    known = find_weights(model.weights, model.name, model.settings).bands
    return same_bands([band.name for band in model.bands], known)


def _recipe(source: str, prepared: Prepared, options: TrainOptions) -> Recipe:
    """Return the recipe of a training; unless a draft is asked for, the fine-tune that follows stands in its place."""
    made = plan(source, prepared, options)
    return made.recipe if options.tune == "draft" or made.full is None else made.full


def augmentation_of(recipe: Recipe) -> dict[str, Any]:
    """Return the settings by which images are changed in training, as options."""
    training = recipe.training.model_dump()
    task = settings_class(recipe.task.name)(**_inner(recipe)).model_dump()
    return {name: training[name] for name in OF_TRAINING} | {
        name: task[name] for name in OF_TASK if name in task
    }


def _inner(recipe: Recipe) -> dict[str, Any]:
    return dict(recipe.task.settings)


def augmentation_differs(contestants: Sequence[Contestant]) -> str:
    """Say which settings of the augmentation differ between contestants; empty where none does."""
    each = [augmentation_of(one.recipe) for one in contestants]
    names = [name for name in each[0] if len({repr(one.get(name)) for one in each}) > 1]
    return shorten(names)
