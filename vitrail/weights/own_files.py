"""Read files of weights that vitrail itself wrote in its own layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vitrail.core import catalog
from vitrail.core.errors import WeightsError
from vitrail.models.factory import config_from, rebuild
from vitrail.weights.conventions import of_converted, of_own
from vitrail.weights.files import Opened
from vitrail.weights.read_request import CLASSIFY, OfClips, Read, shapes
from vitrail.weights.rules import Loaded
from vitrail.weights.stated_config import Said


def read_own(opened: Opened, header: str, user: Said) -> Read:
    """Read a file of vitrail: a model with its task, or only an encoder."""
    try:
        stated = json.loads(header)
        description = stated["encoder"]
    except (ValueError, KeyError) as error:
        raise WeightsError(f"{opened.path} has a broken header; copy it again.") from error
    with torch.device("meta"):
        config = rebuild(description).config
    if user != Said():
        raise WeightsError(f"{opened.path} says itself what its network is; leave --network out.")
    encoder, head = (
        {name.removeprefix(part): t for name, t in opened.tensors.items() if name.startswith(part)}
        for part in ("encoder.", "head.")
    )
    if {name: tuple(tensor.shape) for name, tensor in encoder.items()} != shapes(config):
        raise WeightsError(
            f"{opened.path} does not hold the network that its header describes; copy it again."
        )
    steps = stated.get("preprocessing")
    preprocessing = of_own(stated["preprocess"]) if "preprocess" in stated else steps and of_converted(steps)
    own = task_of(stated.get("task") or {})
    licence, pool = stated.get("licence"), stated.get("pool")
    named = (own.labels, own.task, own.settings, own.things, own.words)
    found = Read(config, Loaded(encoder, head), "vitrail", preprocessing, licence, pool, (), *named)
    return _of_images(found) if config.family == "frames" else found


def _of_images(found: Read) -> Read:
    """Return the network for images of one over frames, and what else it has for clips."""
    config = found.config
    images, time = (
        {name.removeprefix(part): t for name, t in found.weights.encoder.items() if name.startswith(part)}
        for part in ("inner.", "over_time.")
    )
    line = (
        f"trained on clips of {config.frames} frames, each seen alone by the network for images that is taken"
    )
    return found._replace(
        config=config_from(config.inner),
        weights=Loaded(images, found.weights.head),
        clips=OfClips(config.frames, config.over_time, time),
        assumed=(*found.assumed, line),
    )


class TaskOf(NamedTuple):
    """A task in a header of ours: its name, its classes, its settings, which classes are things, and its vocabulary."""

    task: str = CLASSIFY
    labels: tuple[str, ...] = ()
    settings: Mapping[str, Any] = MappingProxyType({})
    things: tuple[str, ...] = ()
    words: Mapping[str, Any] = MappingProxyType({})


def task_of(stated: Mapping[str, Any]) -> TaskOf:
    """Return the task in a header of ours; of a task that wraps another one, that of classification."""
    named = catalog.with_task_name(stated)
    name = named.get("name", CLASSIFY)
    if name in catalog.WRAPPERS:
        return TaskOf()
    things = named.get("things") or (named.get("truth") or {}).get("things", ())
    words = named.get("vocabulary") or {}
    return TaskOf(name, tuple(named.get("labels", ())), named.get("settings", {}), tuple(things), words)
