"""Queries that find objects on a map: two-stage proposals and a decoder, as in LW-DETR and RF-DETR.

Chen et al. 2024, arXiv:2406.03459, and Robinson et al. 2025, arXiv:2511.09554: every cell proposes a box, the best
proposals become the references of queries with learned content (mixed selection, arXiv:2203.03605, §3.3), and a few
layers refine them. While training there are several groups of queries, each with proposals of its own, that do not see
each other (Group DETR, arXiv:2207.13085); afterwards only the first is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.layers.boxes import moved
from vitrail.layers.deformable_attention import DeformableAttention
from vitrail.layers.sdpa import Recorder, attend

RARE = 0.01
"""Probability of every class in a decoder without training: most queries see no object."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder; `groups` counts the groups of queries while training.

    `anchor` is the side of the box that every cell starts from, in shares of the input. Cells whose centre is nearer
    than `margin` to the border propose nothing.
    """

    width: int = 256
    layers: int = 3
    queries: int = 100
    groups: int = 5
    heads: int = 8
    points: int = 2
    hidden: int = 1024
    anchor: float = 0.05
    margin: float = 0.0


class Answers(NamedTuple):
    """Boxes (b, …, 4), centre and sides in shares of the input, and logits of the classes (b, …, k)."""

    boxes: Tensor
    logits: Tensor


class Decoded(NamedTuple):
    """What the decoder found, (b, layer, group·query, …): in training after each layer, otherwise after the last one.

    `first` is what the cells proposed for its queries, (b, group·query, …); `proposals` are the logits of every cell
    for the first group, (b, n, k), before any selection. `vectors` are those of the queries after each layer, with
    their norm, (b, group·query, d).
    """

    layers: Answers
    first: Answers
    proposals: Tensor
    vectors: tuple[Tensor, ...]


class BoxChange(nn.Sequential):
    """Three layers from a vector to the change of a box: (…, d) -> (…, 4); without training it changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )
        last = self[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def class_layer(width: int, classes: int) -> nn.Linear:
    """Return the layer from a vector to the logits of the classes; it starts with the probability `RARE`."""
    layer = nn.Linear(width, classes)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.constant_(layer.bias, -math.log((1 - RARE) / RARE))
    return layer


class Proposer(nn.Module):
    """A class and a box for every cell of the map: (b, n, d) -> Answers of (b, n, …)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.read, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.classes, self.change = class_layer(width, classes), BoxChange(width)

    def forward(self, memory: Tensor, anchors: Tensor) -> Answers:
        """Tokens (b, n, d) and the boxes they start from, (n, 4)."""
        x = self.norm(self.read(memory))
        return Answers(moved(anchors, self.change(x)), self.classes(x).float())


class DecoderLayer(nn.Module):
    """Attention among the queries of a group, deformable attention to the map, and two linear layers; norms after."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        d = shape.width
        self.heads = shape.heads
        self.query, self.key, self.value, self.project = (nn.Linear(d, d) for _ in range(4))
        self.cross = DeformableAttention(d, 2 * shape.heads, shape.points)
        self.feed = nn.Sequential(nn.Linear(d, shape.hidden), nn.ReLU(), nn.Linear(shape.hidden, d))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        for layer in (self.query, self.key, self.value, self.project, self.feed[0], self.feed[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, place: Place, record: Recorder | None = None) -> Tensor:
        """Queries (b, group·q, d) -> (b, group·q, d)."""
        x = self.norms[0](x + self._among(x, place))
        x = self.norms[1](
            x + self.cross(x + place.vectors, place.references, place.memory, place.grid, record)
        )
        out: Tensor = self.norms[2](x + self.feed(x))
        return out

    def _among(self, x: Tensor, place: Place) -> Tensor:
        own, size = x + place.vectors, "b (g q) (h e) -> (b g) h q e"
        q, k, v = (
            rearrange(layer(of), size, g=place.groups, h=self.heads)
            for layer, of in ((self.query, own), (self.key, own), (self.value, x))
        )
        out = rearrange(attend(q, k, v), "(b g) h q e -> b (g q) (h e)", g=place.groups)
        return self.project(out)  # type: ignore[no-any-return]


class Place(NamedTuple):
    """Where the queries look: the vectors of their boxes, the boxes, the map, and the number of groups."""

    vectors: Tensor  # (b, group·q, d)
    references: Tensor  # (b, group·q, 4)
    memory: Tensor  # (b, n, d)
    grid: tuple[int, int]
    groups: int


class QueryDecoder(nn.Module):
    """A map (b, d, row, col) -> boxes and logits of the queries; references stay the same in all layers."""

    def __init__(self, shape: DecoderShape, classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.proposers = nn.ModuleList(Proposer(shape.width, classes) for _ in range(shape.groups))
        self.content = nn.Embedding(shape.groups * shape.queries, shape.width)
        self.correction = nn.Embedding(shape.groups * shape.queries, 4)
        nn.init.zeros_(self.correction.weight)
        self.place = nn.Sequential(
            nn.Linear(2 * shape.width, shape.width), nn.ReLU(), nn.Linear(shape.width, shape.width)
        )
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.classes, self.change = class_layer(shape.width, classes), BoxChange(shape.width)

    def forward(self, maps: Tensor, record: Recorder | None = None) -> Decoded:
        """(b, d, row, col) -> what was found; a recorder gets the attention of every layer to the map."""
        grid = (maps.shape[-2], maps.shape[-1])
        memory = maps.flatten(2).transpose(1, 2)
        groups = self.shape.groups if self.training else 1
        anchors = _anchors(grid, self.shape.anchor, maps.device)
        proposed = [proposer(memory, anchors) for proposer in self.proposers[:groups]]
        best = [self._best(one, anchors) for one in proposed]
        first = Answers(torch.cat([one.boxes for one in best], 1), torch.cat([one.logits for one in best], 1))
        queries = groups * min(self.shape.queries, memory.shape[1])
        chosen = self._chosen(groups, memory.shape[1])
        references = moved(first.boxes.detach(), self.correction(chosen))
        vectors = self.place(_waves(references, self.shape.width // 2).to(memory.dtype))
        place = Place(vectors, references, memory, grid, groups)
        x = self.content(chosen).expand(maps.shape[0], queries, -1)
        read = []
        for layer in self.layers:
            x = layer(x, place, record)
            read.append(self.norm(x))
        y = torch.stack(read if self.training else read[-1:], 1)
        layers = Answers(moved(references[:, None], self.change(y)), self.classes(y).float())
        return Decoded(layers, first, proposed[0].logits, tuple(read))

    def _best(self, proposed: Answers, anchors: Tensor) -> Answers:
        """Return the most probable proposals, as many as there are queries: (b, q, …)."""
        many = min(self.shape.queries, proposed.logits.shape[1])
        rank, margin = proposed.logits.amax(-1), self.shape.margin
        if margin:
            centres = anchors[:, :2]
            rank = rank.masked_fill(((centres <= margin) | (centres >= 1 - margin)).any(-1), -torch.inf)
        at = rank.topk(many, dim=1).indices[..., None]
        boxes = proposed.boxes.gather(1, at.expand(-1, -1, 4))
        return Answers(boxes, proposed.logits.gather(1, at.expand(-1, -1, proposed.logits.shape[-1])))

    def _chosen(self, groups: int, cells: int) -> Tensor:
        """Return the numbers of the queries in use: of each group the first, no more than the map has cells."""
        queries = self.shape.queries
        device = self.content.weight.device
        each = torch.arange(min(queries, cells), device=device)
        return (torch.arange(groups, device=device)[:, None] * queries + each).flatten()


def _anchors(grid: tuple[int, int], side: float, device: torch.device) -> Tensor:
    """Return a small box at the centre of each cell: (row·col, 4), centre and sides in shares."""
    rows, cols = grid
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(cols, device=device) + 0.5) / cols
    centres = torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)], -1).view(-1, 2)
    return torch.cat([centres, torch.full_like(centres, side)], -1)


def _waves(boxes: Tensor, width: int) -> Tensor:
    """Return sines and cosines of the numbers of boxes, (b, q, 4) -> (b, q, 4·width), for their position vectors."""
    rates = 10_000 ** (-torch.arange(0, width, 2, device=boxes.device) / width)
    angles = boxes[..., None] * (2 * math.pi) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)
