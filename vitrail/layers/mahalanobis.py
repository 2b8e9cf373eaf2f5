"""How unlike all known classes an image is: Mahalanobis distances of its features, in the network itself.

`vitrail.metrics.mahalanobis` fits what the buffers hold and explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAST, MIDDLE = "last", "middle"
"""Places of a network with one vector per image: what the head reads, and the mean of the map halfway."""


class DistanceSpec(NamedTuple):
    """A distance: the place of its vectors, their width, and whether it is relative to that of all images."""

    place: str
    width: int
    relative: bool


class Distance(nn.Module):
    """The squared distance to the nearest class mean, less its usual value, in units of its spread.

    Its parts are buffers, because no training changes them.
    """

    centre: Tensor
    within: Tensor
    means: Tensor
    whole: Tensor
    scale: Tensor

    def __init__(self, spec: DistanceSpec, classes: int) -> None:
        super().__init__()
        self.spec, d = spec, spec.width
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("within", torch.zeros(d, d))
        self.register_buffer("means", torch.zeros(classes, d))
        if spec.relative:
            self.register_buffer("whole", torch.zeros(d, d))
        self.register_buffer("scale", torch.ones(2))  # the usual value and the spread

    def forward(self, vectors: Tensor) -> Tensor:
        """(b, d) -> (b,)."""
        x = F.normalize(vectors.to(self.centre.dtype), dim=-1) - self.centre
        inside = x @ self.within
        products = inside @ self.means.T
        nearest = (self.means.square().sum(-1) - 2 * products).amin(-1) + inside.square().sum(-1)
        if self.spec.relative:
            nearest = nearest - (x @ self.whole).square().sum(-1)
        return (nearest - self.scale[0]) / self.scale[1]


class VectorReader(nn.Module):
    """Reads vectors at places of a network, by name, and returns outputs by name; `makes` are their names."""

    places: tuple[str, ...]
    makes: tuple[str, ...]
    __call__: Callable[..., dict[str, Tensor]]

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs from the vectors (b, d) of every place."""
        raise NotImplementedError


class Novelty(VectorReader):
    """The largest of several distances as the output `novelty`, (b,), always in the precision of its buffers."""

    def __init__(self, specs: Sequence[DistanceSpec], classes: int) -> None:
        super().__init__()
        self.distances = nn.ModuleList(Distance(spec, classes) for spec in specs)
        self.places = tuple(dict.fromkeys(spec.place for spec in specs))
        self.makes = ("novelty",)

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the largest distance: vectors (b, d) by place -> {"novelty": (b,)}."""
        found = [distance(vectors[spec.place]) for distance, spec in self._parts()]
        return {"novelty": torch.stack(found).amax(0)}

    def _parts(self) -> list[tuple[nn.Module, DistanceSpec]]:
        return [(one, one.spec) for one in self.distances if isinstance(one, Distance)]


class VectorOutputs(VectorReader):
    """The vectors themselves as outputs, named `vectors.PLACE`: what `Novelty` is fitted on, and computed from."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self.places = tuple(places)
        self.makes = tuple(map(output_of, places))

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the vectors of every place: (b, d) by place -> (b, d) by output."""
        return {output_of(place): vectors[place] for place in self.places}


def output_of(place: str) -> str:
    """Return the name of the output that holds the vectors of a place."""
    return f"vectors.{place}"
