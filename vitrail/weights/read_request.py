"""What is asked of a file of weights, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.models.factory import build
from vitrail.weights.conventions import Preprocessing
from vitrail.weights.files import Opened
from vitrail.weights.rules import Loaded
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import through_timm
from vitrail.weights.timm_folder import TimmFolder
from vitrail.weights.unwrap_checkpoint import parts


class Read(NamedTuple):
    """Weights under our names, the settings of their network, whose layout they had, and its preprocessing.

    `pool` is what the classifier reads, and `labels` its classes, where that is stated; `assumed` are sentences on what
    nobody states, and on what of the file was left aside.
    """

    config: Any
    weights: Loaded
    source: str
    preprocessing: Preprocessing | None = None
    licence: str | None = None
    pool: str | None = None
    assumed: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Asked(NamedTuple):
    """What is to be read: the file, the network that the user names, what the user states, and timm's folder."""

    opened: Opened
    model: str | None
    wanted: Any  # its settings; None where no network is named, or a family alone
    user: Said
    folder: TimmFolder | None
    written: Any  # the settings that we wrote into the header of a file in another layout, or None

    @property
    def family(self) -> str | None:
        """The family of the network that the user names, else the one that stands in the header."""
        if self.wanted is not None:
            return str(self.wanted.family)
        return self.model or (self.written and str(self.written.family))


def alternatives(opened: Opened) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield all tensors, and then those of each part of a larger network, with the name in front."""
    yield "", opened.tensors
    yield from parts(opened.tensors)


def beside(tensors: Mapping[str, Tensor]) -> str | None:
    """Return a sentence where a part that is no image encoder was left aside."""
    aside = [n for n in tensors if any(fnmatchcase(n, pattern) for pattern in through_timm.BESIDE)]
    names = {"decoder" if n.startswith("decoder") else n.split(".")[0] for n in aside}
    return f"left aside: {', '.join(sorted(names))}" if names else None


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of an encoder's tensors; no memory is filled."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
