"""The gallery of networks: ours and timm's, read from a table that was made once, so that the page needs no torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).parent / "models.csv"
"""Written by `python -m bench.model_index`."""

STEPS = Path(__file__).parent / "model_steps.json"
"""What happens to an image in our networks, step by step, written by the same script."""

COLUMNS = ("name", "family", "kind", "parameters", "side", "licence", "tags")

KINDS = ("transformer", "hybrid", "convolutional", "mixer")

SIZES = {"small": (0, 10_000_000), "medium": (10_000_000, 50_000_000), "large": (50_000_000, 10**12)}
"""Ranges of parameters that can be chosen."""

PAGE = 60
"""Networks of one page."""


class Entry(NamedTuple):
    """A network: `family` is that of ours, "" of timm's; `side` its input in pixels; `tags` its published weights."""

    name: str
    family: str
    kind: str
    parameters: int
    side: int
    licence: str
    tags: tuple[str, ...]

    @property
    def own(self) -> bool:
        """Whether it is one of ours."""
        return bool(self.family)


class Wanted(NamedTuple):
    """What is looked for: words of the name, a kind, and a size; empty is any."""

    words: str = ""
    kind: str = ""
    size: str = ""


@lru_cache(maxsize=1)
def entries() -> Sequence[Entry]:
    """Return all networks, ours first."""
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(
            Entry(
                row["name"], row["family"], row["kind"], int(row["parameters"]), int(row["side"]), row["licence"],
                tuple(row["tags"].split()),
            )
            for row in csv.DictReader(handle)
        )  # fmt: skip


def entry(name: str) -> Entry | None:
    """Return a network by its name; ours is meant where timm has one of the same name."""
    return next((one for one in entries() if one.name == name), None)


def found(wanted: Wanted) -> list[Entry]:
    """Return the networks that fit, ours first."""
    words = wanted.words.casefold().split()
    low, high = SIZES.get(wanted.size, (0, 10**12))
    return [
        one
        for one in entries()
        if all(word in f"{one.name} {one.family} {' '.join(one.tags)}".casefold() for word in words)
        and (not wanted.kind or one.kind == wanted.kind)
        and low <= one.parameters < high
    ]


class Step(NamedTuple):
    """A step of a network: what does it, and the grid, the other tokens and the numbers a token after it.

    `times` is how many equal ones follow each other.
    """

    what: str
    grid: tuple[int, int]
    prefix: int
    width: int
    times: int


def steps(name: str) -> list[Step]:
    """Return the steps of a network of ours; none of timm's."""
    return [
        Step(one["what"], tuple(one["grid"]), one["prefix"], one["width"], one["times"])
        for one in _steps().get(name, ())
    ]


@lru_cache(maxsize=1)
def _steps() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(STEPS.read_text(encoding="utf-8"))
    return found
