"""Request and result of reading a file of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.catalog import load
from vitrail.models.factory import build
from vitrail.weights.conventions import Preprocessing
from vitrail.weights.files import Opened
from vitrail.weights.rules import Loaded
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import through_timm
from vitrail.weights.timm_folder import TimmFolder
from vitrail.weights.unwrap_checkpoint import parts

CLASSIFY = "classify"
"""The task of most published heads."""

CONVERTED = "vitrail_network"
"""The header key of files that vitrail wrote in another layout, for settings that do not follow from tensors."""


class OfClips(NamedTuple):
    """How a network for images was used over frames, and the tensors of its attention over time, if it had one."""

    frames: int
    over_time: str
    tensors: Mapping[str, Tensor]


class Read(NamedTuple):
    """Weights with our tensor names, the settings of their network, their original layout and preprocessing.

    `pool` is what the classifier reads, and `labels` its classes, if stated; `assumed` are sentences about assumptions,
    and about parts of the file that are not used. The head is that of `task` with these `settings`; of
    a panoptic one the classes `things` are single objects, if stated. `words` is the vocabulary of a text tower that a
    model file of ours has.
    """

    config: Any
    weights: Loaded
    source: str
    preprocessing: Preprocessing | None = None
    licence: str | None = None
    pool: str | None = None
    assumed: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    task: str = CLASSIFY
    settings: Mapping[str, Any] = MappingProxyType({})
    things: tuple[str, ...] = ()
    words: Mapping[str, Any] = MappingProxyType({})
    clips: OfClips | None = None


class Asked(NamedTuple):
    """A request: the file, the network named by the user, the settings stated by the user, and timm's folder."""

    opened: Opened
    model: str | None
    wanted: Any  # its settings; None if no network, or only a family, is named
    user: Said
    folder: TimmFolder | None
    written: Any  # the settings that we wrote into the header of a file in another layout, or None

    @property
    def family(self) -> str | None:
        """The family of the network named by the user, else the one in the header."""
        if self.wanted is not None:
            return str(self.wanted.family)
        return self.model or (self.written and str(self.written.family))


def alternatives(opened: Opened) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield all tensors, and then those of each part of a larger network, with their prefix."""
    yield "", opened.tensors
    yield from parts(opened.tensors)


def beside(tensors: Mapping[str, Tensor]) -> str | None:
    """Return a sentence if a part other than an image encoder was not used."""
    aside = [n for n in tensors if any(fnmatchcase(n, pattern) for pattern in through_timm.BESIDE)]
    names = {"decoder" if n.startswith("decoder") else n.split(".")[0] for n in aside}
    return f"left aside: {', '.join(sorted(names))}" if names else None


def head_shapes(
    config: Any, task: str, settings: Mapping[str, Any], classes: int
) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a head for an encoder, without allocating memory."""
    with torch.device("meta"):
        encoder = build(config)
        head = encoder.own_head(task, classes)
        if head is None:
            head = load("task", task)([f"class {number}" for number in range(classes)], settings).head(
                encoder.spec
            )
    return {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of an encoder's tensors, without allocating memory."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
