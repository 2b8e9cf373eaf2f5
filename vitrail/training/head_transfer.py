"""Begin a training with the head of published weights: its settings in the recipe, and its tensors.

Tensors of the same name and shape are copied. Classes are matched by name; others begin as published ones, in turn:
rows that know how objects look learn faster than noise, as RF-DETR's own fine-tuning does (arXiv:2511.09554).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.data.labels import count, shorten
from vitrail.layers.query_decoder import QueryDecoder
from vitrail.runs.class_layers import class_layers, count_classes
from vitrail.runs.network import Network
from vitrail.runs.task_settings import settings_of_taken
from vitrail.tasks.base import Task
from vitrail.weights.class_names import object_names
from vitrail.weights.pretrained import Pretrained

LEAST = 0.5
"""Smallest share of the tensors of a head that must fit, for any to be taken."""


PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"things.": ("detect", "instances"), "pixels.": ("segment",)}
)
"""Parts of our panoptic head → the tasks whose heads they are."""


class PublishedHead(NamedTuple):
    """The head in published weights: its task, and the settings of this task that it was made with."""

    task: str
    settings: Mapping[str, Any]


def carries_over(head: PublishedHead | None, task: str) -> bool:
    """Return whether a training of this task begins with this head."""
    return head is not None and head.task in load("task", task).begins_from


def settings_from(head: PublishedHead, task: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the head for a recipe, and those of a training that does not begin with noise.

    Tasks whose lists of such settings begin alike have those in common. Nothing is returned if the `stated` settings
    have another width, since then no tensor fits.
    """
    both = zip(load("task", task).head_settings, load("task", head.task).head_settings, strict=False)
    sizes = [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
    if any(stated.get(name) not in (None, head.settings.get(name)) for name in sizes if name == "width"):
        return {}
    return {
        **settings_of_taken(task),
        **{name: head.settings[name] for name in sizes if head.settings.get(name) is not None},
    }


def take_head(network: Network, task: Task[Any, Any], name: str, found: Pretrained) -> tuple[str, ...]:
    """Take what fits of a published head into the head of a network; return a line that says what is new.

    `name` is that of the task. Weights whose head has another task that this one does not begin from are left.
    """
    if not found.head or not carries_over(PublishedHead(found.task, found.settings), name):
        return ()
    own = network.head.state_dict()
    parts = [(part, _taken(network, part, own, found)) for part in _parts(own, task, name)]
    taken = {key: tensor for _, one in parts for key, tensor in one.tensors.items()}
    if not taken:
        return (f"the head of {found.name} does not fit these settings; the head is new",)
    network.head.load_state_dict({**own, **taken})
    return (_line(found, own, taken, [one.classes for part, one in parts if one.tensors]),)


class _Part(NamedTuple):
    """A part of a head, or all of it: the beginning of its names, its task by name and as it is."""

    front: str
    name: str
    task: Any


class _Taken(NamedTuple):
    """Tensors for a part of a head, with their names in it, and how its classes begin."""

    tensors: Mapping[str, Tensor]
    classes: _Classes


def _parts(own: Mapping[str, Tensor], task: Any, name: str) -> list[_Part]:
    """Return the parts of a head; a panoptic one of ours has that of instance segmentation and that of segmentation."""
    things, pixels = PARTS
    if name == "panoptic" and any(key.startswith(things) for key in own):
        return [_Part(things, "instances", task.shapes), _Part(pixels, "segment", task.areas)]
    return [_Part("", name, task)]


def _of_published(found: Pretrained, part: _Part) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Return the published tensors and classes for a part: all, or those of the same part of a panoptic head."""
    front = next((front for front, tasks in PARTS.items() if part.name in tasks), "")
    if found.task == "panoptic" and front and any(key.startswith(front) for key in found.head):
        tensors = {key.removeprefix(front): t for key, t in found.head.items() if key.startswith(front)}
        return tensors, found.labels if part.name == "segment" else found.things
    fits = found.task in part.task.begins_from
    return (found.head, found.labels) if fits else ({}, ())


def _taken(network: Network, part: _Part, own: Mapping[str, Tensor], found: Pretrained) -> _Taken:
    """Return what fits a part of a head; nothing if that is less than the share `LEAST`."""
    head, labels = _of_published(found, part)
    layers = class_layers(network.encoder, part.name, part.task.settings.model_dump())
    classes = _Classes.of(part.task.labels, labels, count_classes(head, layers))
    module = network.head.get_submodule(part.front.rstrip("."))
    tensors: dict[str, Tensor] = {}
    for key, tensor in _regrouped(module, head).items():
        if key in layers and classes.rows:
            tensor = _rows(tensor, classes.rows, layers[key])
        place = part.front + key
        if place in own and tensor.shape == own[place].shape:
            tensors[place] = tensor.to(own[place].dtype)
    # Of another width, what fits by chance helps nobody.
    enough = len(tensors) >= LEAST * sum(key.startswith(part.front) for key in own)
    return _Taken(tensors if enough else {}, classes)


class _Classes(NamedTuple):
    """For each class the row of a published one, how many have its name, and the names of the published classes."""

    rows: tuple[int, ...]
    named: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: Sequence[str], stated: Sequence[str], published: int) -> _Classes:
        """Match classes by name; the others get the published rows in turn."""
        if not published:
            return cls(())
        known = object_names(stated, published)
        places = {spelling(name): place for place, name in enumerate(known.names)}
        used = [place for place in range(published) if place not in known.unused]
        rows = [places.get(spelling(name), used[turn % len(used)]) for turn, name in enumerate(labels)]
        return cls(tuple(rows), tuple(name for name in labels if spelling(name) in places))


def spelling(name: str) -> str:
    """Return letters and digits of a name alone, in lower case, by which classes are matched."""
    return "".join(one for one in name.casefold() if one.isalnum())


def _rows(tensor: Tensor, rows: Sequence[int], more: int) -> Tensor:
    """Return the rows of classes, then the `more` last rows, such as that of "no object"."""
    classes = tensor[: len(tensor) - more]
    return torch.cat([classes[list(rows)], tensor[len(tensor) - more :]])


def _regrouped(own: nn.Module, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published head with the groups and queries of this one, cut or repeated in turn."""
    found = dict(head)
    for place, module in own.named_modules():
        if isinstance(module, QueryDecoder):
            found |= dict(_of_decoder(f"{place}." if place else "", module, head))
    return found


def _of_decoder(
    place: str, decoder: QueryDecoder, head: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    shape, proposers = decoder.shape, f"{place}proposers."
    groups = len(
        {name.removeprefix(proposers).partition(".")[0] for name in head if name.startswith(proposers)}
    )
    if not groups:
        return
    for name in (f"{place}content.weight", f"{place}correction.weight"):
        if name in head:
            table = rearrange(head[name], "(g q) d -> g q d", g=groups)
            rows, columns = (
                torch.arange(wanted) % there
                for wanted, there in zip((shape.groups, shape.queries), table.shape[:2], strict=True)
            )
            yield name, table[rows][:, columns].flatten(0, 1)
    for group in range(shape.groups):
        first = f"{proposers}{group % groups}."
        for name in [one for one in head if one.startswith(first)]:
            yield f"{proposers}{group}.{name.removeprefix(first)}", head[name]


def _line(
    found: Pretrained, own: Mapping[str, Tensor], taken: Mapping[str, Tensor], classes: Sequence[_Classes]
) -> str:
    parts = [f"head of {found.name}: {len(taken)} of {count(len(own), 'tensor')} taken"]
    named = list(dict.fromkeys(name for one in classes for name in one.named))
    others = max((len(one.rows) - len(one.named) for one in classes), default=0)
    if named:
        parts.append(f"{count(len(named), 'class', 'classes')} by name ({shorten(named)})")
    if others:
        parts.append(
            f"{count(others, 'class', 'classes')} with the rows of published ones, repeated, not random"
        )
    new = [name for name in own if name not in taken]
    if new:
        parts.append(f"new: {shorten(_largest(new, taken))}")
    return "; ".join(parts)


def _largest(new: Iterable[str], taken: Mapping[str, Tensor]) -> list[str]:
    """Return the largest parts of a head that are new altogether."""
    found = []
    for name in new:
        words = name.split(".")
        fronts = (".".join(words[:end]) for end in range(1, len(words)))
        found.append(next((f for f in fronts if not any(t.startswith(f"{f}.") for t in taken)), name))
    return list(dict.fromkeys(found))
