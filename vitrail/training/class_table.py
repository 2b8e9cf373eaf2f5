"""Networks that are told the class of an image: one row of a table for each class, and a last one for none.

The number of classes follows from the data. Rows of published weights are matched by name; a class that they do not
know begins with the row of no class, which stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from vitrail.core.errors import SettingError
from vitrail.data.labels import count, shorten
from vitrail.models.factory import build, config_of
from vitrail.runs.recipe import ModelSettings
from vitrail.training.head_transfer import spelling
from vitrail.weights.class_names import class_names
from vitrail.weights.pretrained import Pretrained

SETTING = "classes"
"""The field of such a network's config."""


def with_classes(model: ModelSettings, labels: Sequence[str]) -> ModelSettings:
    """Return the settings of a network without weights, for these classes if it is told the class.

    SettingError if another number of classes is stated.
    """
    if not labels or not is_told(config_of(model.name)):
        return model
    if (stated := model.settings.get(SETTING)) not in (None, len(labels)):
        raise SettingError(
            f"--network {SETTING}={stated}: the data have {count(len(labels), 'class', 'classes')}. Leave it out; it "
            "follows from them."
        )
    return model.model_copy(update={"settings": {**model.settings, SETTING: len(labels)}})


def is_told(config: Any) -> bool:
    """Return whether a network with these settings is told the class."""
    return any(field.name == SETTING for field in fields(config))


def fit_classes(found: Pretrained, labels: Sequence[str]) -> tuple[Pretrained, tuple[str, ...]]:
    """Return weights with rows for these classes, and a sentence about them if they were changed."""
    if not labels or not is_told(found.config):
        return found, ()
    known = class_names(found.labels, found.config.classes).names
    if tuple(known) == tuple(labels):
        return found, ()
    places = {spelling(name): place for place, name in enumerate(known)}
    rows = torch.tensor([places.get(spelling(name), len(known)) for name in (*labels, "")])
    rows[-1] = len(known)
    tensors = {**found.encoder, **{name: found.encoder[name][rows] for name in _tables(found.config)}}
    named = [name for name in labels if spelling(name) in places]
    others = len(labels) - len(named)
    parts = [f"{count(len(named), 'class', 'classes')} by name ({shorten(named)})"] if named else []
    parts += [f"{count(others, 'new class', 'new classes')} with its row of no class"] if others else []
    config = replace(found.config, **{SETTING: len(labels)})
    line = f"classes of {found.name}: {'; '.join(parts)}"
    return replace(found, config=config, encoder=tensors, labels=tuple(labels)), (line,)


def _tables(config: Any) -> list[str]:
    """Return the tensors with a row for each class."""
    with torch.device("meta"):
        here, more = (
            build(replace(config, **{SETTING: classes})).state_dict()
            for classes in (config.classes, config.classes + 1)
        )
    return [name for name, tensor in here.items() if tensor.shape != more[name].shape]
