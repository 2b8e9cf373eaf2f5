"""Published networks of other tasks than labels: their own head, loaded strictly, with classes or a text tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.catalog import load
from vitrail.core.errors import SettingError, UnknownNameError, WeightsError
from vitrail.core.text import command
from vitrail.data.labels import shorten
from vitrail.data.truth import Truth
from vitrail.runs.class_layers import class_layers, count_classes, truth_for
from vitrail.runs.network import Network, build_network, build_task, lend_network
from vitrail.tasks.base import Task
from vitrail.weights.class_names import ClassNames, ObjectNames, class_names, object_names, things_of
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import Pretrained

NEVER = -50.0
"""The logit of outputs that stand for no class: a confidence of 2e-22."""

ANSWERS = ("decoder.classes.weight", "decoder.classes.bias")
"""The layer of our detectors whose sigmoid is the confidence; each output is independent of the others."""


class Answering(NamedTuple):
    """A network with its published head, its task, and sentences on what was assumed."""

    network: Network
    task: Task[Any, Any]
    notes: tuple[str, ...]


def with_own_head(found: Pretrained) -> Answering:
    """Return the network of published weights with their head, in evaluation mode.

    Raises:
        WeightsError: the head has tensors that its task has not, or lacks some, or has other shapes.
    """
    size = found.config.size if found.settings.get("vae") else published_preprocess(found).size  # of latents
    encoder, settings = found.build(image=size if size != found.config.size else None), _settings(found)
    if found.task == "panoptic" and encoder.own_head(found.task, 2) is not None:
        settings = {"merge": "queries", **settings}  # its queries find things and areas alike
    layers = class_layers(encoder, found.task, settings)
    if found.head and not layers:  # a task without classes, or a network that is told the class
        classes = getattr(encoder.config, "classes", 0)
        known = class_names(found.labels, classes) if classes else ClassNames(())
        task = build_task(found.task, truth_for(found.task, known.names), settings)
        network = build_network(encoder, task)
        _load(network, found.head, found)
        lines = (f"the weights {found.name}: {known.assumed}",) if known.assumed else ()
        return Answering(network.eval().requires_grad_(False), task, lines)
    count = count_classes(found.head, layers)
    if not count:
        raise WeightsError(
            f"The weights {found.name} have no head for the task {found.task}, so they cannot answer alone. Train one "
            f"on your images: {command('train', 'IMAGES', '--task', found.task, '--weights', found.name)}"
        )
    named = object_names(found.labels, count)
    task = build_task(found.task, truth_for(found.task, named.names, _things(found, named)), settings)
    network = build_network(encoder, task)
    head = _silenced(found.head, layers, named.unused)
    _load(network, head, found)
    return Answering(network.eval().requires_grad_(False), task, tuple(_notes(found, named)))


def with_text_tower(found: Pretrained) -> Answering:
    """Return the network of published weights with image and text tower, in evaluation mode, and its vocabulary.

    Raises:
        WeightsError: the text tower is missing, or was made for another vocabulary.
        MissingExtraError: a package for words is missing.
    """
    size = published_preprocess(found).size
    encoder = found.build(image=size if size != found.config.size else None)
    task: Any = build_task(found.task, Truth("caption"), found.settings)
    task.learn_vocabulary(())
    count = found.settings.get("vocabulary_size")
    if task.vocabulary.size != count:
        raise WeightsError(
            f"The text tower of {found.name} has {count:,} tokens, and its vocabulary {task.vocabulary.size:,}. "
            "Put its tokenizer.json beside the weights and name the folder."
        )
    network = build_network(encoder, task)
    _load(network, found.head, found)
    lend_network(task, network)
    return Answering(network.eval().requires_grad_(False), task, ())


def _settings(found: Pretrained) -> dict[str, Any]:
    """Return the settings of the task of these weights; WeightsError if there is no such task, or no such setting."""
    try:
        build_task(found.task, truth_for(found.task, ["one", "two"]), found.settings)
    except (UnknownNameError, SettingError) as error:
        raise WeightsError(f"The head of the weights {found.name} is not supported: {error}") from error
    return dict(found.settings)


def _things(found: Pretrained, named: ObjectNames) -> tuple[str, ...]:
    """Return the classes that are things; WeightsError for a panoptic head that nobody knows them of."""
    if load("task", found.task).kind != "panoptic":
        return ()
    numbers = [found.labels.index(name) for name in found.things if name in found.labels]
    things = tuple(named.names[number] for number in numbers) or things_of(named.names)
    if not things:
        raise WeightsError(
            f"The weights {found.name} do not state which of their {len(named.names)} classes are single objects and "
            "which are areas, so they cannot answer. Only those of COCO are known (133 or 250 classes)."
        )
    return things


def _silenced(
    head: Mapping[str, Tensor], layers: Mapping[str, int], unused: Sequence[int]
) -> dict[str, Tensor]:
    """Return the head with outputs that never answer where they stand for no class.

    That changes no other output of a layer with a sigmoid. Where classes share a softmax, all stay as they are.
    """
    if not unused or any(layers.values()) or not all(name in head for name in ANSWERS):
        return dict(head)
    weight, bias = (head[name].float().clone() for name in ANSWERS)
    weight[list(unused)], bias[list(unused)] = 0.0, NEVER
    return {**head, **dict(zip(ANSWERS, (weight, bias), strict=True))}


def _load(network: Network, head: Mapping[str, Tensor], found: Pretrained) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in network.head.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in head.items()}
    wrong = [f"{name} is missing" for name in own.keys() - theirs.keys()]
    wrong += [f"{name} has no place" for name in theirs.keys() - own.keys()]
    wrong += [
        f"{name} is {theirs[name]} where {own[name]} is wanted"
        for name in own.keys() & theirs.keys()
        if own[name] != theirs[name]
    ]
    if wrong:
        raise WeightsError(
            f"The head of the weights {found.name} does not fit the task {found.task}: {shorten(sorted(wrong))}. "
            f"Their network alone can be trained: "
            f"{command('train', 'IMAGES', '--task', found.task, '--weights', found.name)}"
        )
    network.head.load_state_dict({name: _plain(tensor) for name, tensor in head.items()})


def _plain(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _notes(found: Pretrained, named: ObjectNames) -> Iterator[str]:
    if named.assumed:
        yield f"the weights {found.name}: {named.assumed}"
    if named.unused:
        numbers = shorten([str(number) for number in named.unused])
        names = shorten([f"unused {number}" for number in named.unused])
        one, several = f"output {numbers} stands", f"outputs {numbers} stand"
        which, are = (one, "is") if len(named.unused) == 1 else (several, "are")
        yield f"the weights {found.name}: the {which} for no class, and {are} called {names}"
