"""Who takes part in a duel: networks by name, each with its weights, its own recipe, and equal augmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import UnknownNameError, UsageError
from vitrail.data.labels import shorten
from vitrail.data.prepare import Prepared
from vitrail.models.factory import config_of
from vitrail.runs.recipe import Recipe
from vitrail.runs.task_settings import settings_class
from vitrail.runs.train_options import TrainOptions
from vitrail.training.resolve_recipe import plan

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
        weights = self.recipe.model.weights
        return Path(weights).name if os.path.exists(weights) else weights


def named(words: Sequence[str]) -> dict[str, TrainOptions]:
    """Return what each word names: a network, NAME=WEIGHTS, or weights by themselves.

    Raises:
        UsageError: fewer than two, or one of them twice.
        UnknownNameError: no such network; the error names the nearest.
    """
    found: dict[str, TrainOptions] = {}
    for word in words:
        name, _, weights = word.partition("=")
        label, options = (
            _of_weights(word) if not weights and os.path.exists(word) else (name, _of(name, weights))
        )
        if label in found:
            raise UsageError(f"{label} stands twice in --models. Name each network once.")
        found[label] = options
    if len(found) < 2:
        raise UsageError("A comparison takes two networks or more: --models vit_s16,resnet50")
    return found


def _of_weights(path: str) -> tuple[str, TrainOptions]:
    """Return a file or folder of weights under its own name."""
    return Path(path).stem, TrainOptions(weights=path)


def _of(name: str, weights: str) -> TrainOptions:
    """Return a network with weights; where weights are there, their name may be any, for they know their network."""
    try:
        config_of(name)
    except UnknownNameError:
        if not os.path.exists(weights):
            raise
        return TrainOptions(weights=weights)
    return TrainOptions(model=name, weights=weights or None)


def planned(
    source: str,
    prepared: Prepared,
    words: Sequence[str],
    common: TrainOptions,
    own_augmentation: bool = False,
) -> list[Contestant]:
    """Return the contestants with complete recipes; all but their augmentation is each family's own.

    `common` states what all share. Without `own_augmentation` the first one's augmentation is that of all.
    """
    found: list[Contestant] = []
    shared: dict[str, Any] = {}
    for label, one in named(words).items():
        options = replace(common, model=one.model, weights=one.weights or common.weights, **shared)
        recipe = _recipe(source, prepared, options)
        found.append(Contestant(label, recipe))
        if not own_augmentation and not shared and common.tune != "draft":
            shared = augmentation_of(recipe)
    return found


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


def pretraining_differs(contestants: Sequence[Contestant]) -> bool:
    """Tell whether some start from other weights than others, so that a difference is no merit of the architecture.

    Weights of two architectures are always two files: only trainings from scratch compare the architectures alone.
    """
    return any(one.recipe.model.weights != "none" for one in contestants)
