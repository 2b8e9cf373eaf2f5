"""Raw attention of one token, in any layer and head (brighter: more weight)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.grids import Grid, before_joining, spread
from vitrail.explainers.streaming import Piecewise
from vitrail.explainers.target import Subject
from vitrail.layers.sdpa import AttentionMap, TokenIndex
from vitrail.layers.tokens import class_tokens
from vitrail.runs.network import Network


@dataclass(frozen=True)
class AttentionSettings:
    """Which attention is shown: layer and head, counted from 1; by default the last layer and the mean of its heads.

    `query` is the query token: the name of a prefix token (cls, dist, reg1, reg2 …), a patch as ROW,COLUMN (of a clip
    FRAME,ROW,COLUMN), or "" for the class token (of several all alike) or, if there is none, the mean of all patches.
    """

    layer: int | None = None
    head: int | None = None
    query: str = ""


class Attention:
    """Show where one token looks, in one layer."""

    name = "attention"
    Settings = AttentionSettings

    def __init__(self, settings: AttentionSettings = AttentionSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Return whether the network exposes its attention."""
        return network.spec.shows_attention

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return the weights of one row: (b, channels, height, width) -> (b, row, col), of clips (b, t, row, col).

        Raises:
            SettingError: there is no such layer, head or token.
        """
        looks = looks_of(subject, pixels, self.settings.query)
        one = looks[_place("layer", self.settings.layer or len(looks), len(looks))]
        if self.settings.head is None:
            return one.mean(1)
        return one[:, _place("head", self.settings.head, one.shape[1])]


def looks_of(subject: Subject, pixels: Tensor, query: str = "") -> list[Tensor]:
    """Return the attention of a token in every layer: one (b, h, *grid) per layer, on the grid of that layer.

    Without a `query`, layers in which the class token asks nothing, as in attention over time, show the mean of all
    patches.
    """
    with torch.inference_mode():
        images = pixels.to(subject.device)
        grid = subject.network.encoder(images[:1]).tokens.grid
        prefix = subject.spec.prefix
        recorder = _Rows(query_row(query, prefix, grid), grid, len(prefix))
        if not query:
            recorder.others = patch_mean(len(prefix), grid)
        subject.network.encoder(images, record=recorder)
    return [row.cpu() for row in recorder.found()]


def _place(kind: str, number: int, count: int) -> int:
    if not 1 <= number <= count:
        raise SettingError(f"There is no {kind} {number}: this network has {kind}s 1 to {count} here.")
    return number - 1


class _Rows(Piecewise):
    """Extracts one row of every attention call, head by head."""

    def __init__(self, query: Tensor, grid: Grid, tokens: int) -> None:
        super().__init__()
        self.query, self.last, self.tokens = query, grid, tokens  # the query, as weights on the last grid
        self.others: Tensor | None = None  # the query where none of its tokens asks
        self.rows: list[list[Tensor]] = []
        self.grids: list[Grid] = []
        self._here = query

    def begin(self, place: TokenIndex) -> None:
        self.rows.append([])
        self.grids.append(self.grid)
        here = spread(self._asking(place), self.last, self.grid, self.tokens)
        self._here = before_joining(here, self.tokens, self.prefix)

    def _asking(self, place: TokenIndex) -> Tensor:
        if self.others is None or self.grid != self.last:
            return self.query
        silent = AttentionMap(self.query, *place).unasked(self.query.to(place.rows.device))
        return self.others if float(silent.sum()) > 0.5 else self.query

    def take(self, piece: AttentionMap) -> None:
        row = self._here.to(piece.weights).expand(len(piece.weights) // piece.groups, -1)
        heads = [
            replace_heads(piece, head).left_multiply(row)[:, self.prefix :]
            for head in range(piece.weights.shape[1])
        ]
        self.rows[-1].append(torch.stack(heads, 1))

    def found(self) -> list[Tensor]:
        return [
            sum(parts[1:], parts[0]).view(*parts[0].shape[:2], *grid)
            for parts, grid in zip(self.rows, self.grids, strict=True)
        ]


def replace_heads(piece: AttentionMap, head: int) -> AttentionMap:
    """Return the attention of one head only."""
    return piece._replace(weights=piece.weights[:, head : head + 1])


def query_row(query: str, names: tuple[str, ...], grid: Grid) -> Tensor:
    """Return the query as weights over prefix and patches: (1, prefix + prod(grid)), with sum 1.

    Raises:
        SettingError: there is no such token; the message lists all tokens.
    """
    prefix = token_names(names)
    row = torch.zeros(1, len(prefix) + prod(grid))
    classes = class_tokens(names)
    if query in prefix:
        row[0, prefix.index(query)] = 1
    elif not query and classes:
        row[0, classes] = 1 / len(classes)
    elif not query:
        return patch_mean(len(prefix), grid)
    else:
        row[0, len(prefix) + _patch(query, prefix, grid)] = 1
    return row


def patch_mean(prefix: int, grid: Grid) -> Tensor:
    """Return the mean of all patches as weights over prefix and patches: (1, prefix + prod(grid))."""
    row = torch.zeros(1, prefix + prod(grid))
    row[0, prefix:] = 1 / prod(grid)
    return row


def token_names(names: tuple[str, ...]) -> list[str]:
    """Return unique names of the prefix tokens: registers, and class tokens of windows, are numbered."""
    return [
        f"{name}{names[: place + 1].count(name)}" if name == "reg" or names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _patch(query: str, prefix: list[str], grid: Grid) -> int:
    parts = query.split(",")
    if len(parts) == len(grid) and all(part.strip().isdigit() for part in parts):
        place = tuple(int(part) for part in parts)
        if all(1 <= one <= side for one, side in zip(place, grid, strict=True)):
            return sum((one - 1) * prod(grid[axis + 1 :]) for axis, one in enumerate(place))
    names = f"{', '.join(prefix)}, or " if prefix else ""
    form, first = ("FRAME,ROW,COLUMN", "1,1,1") if len(grid) == 3 else ("ROW,COLUMN", "1,1")
    raise SettingError(
        f"There is no token {query!r}; name {names}a patch as {form} from {first} to {','.join(map(str, grid))}."
    )
