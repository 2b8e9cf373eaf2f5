"""The origin of each setting of a recipe: one of its layers, or the fitting to the network and the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from vitrail.runs.recipe import Recipe

FITTED = "fitted to network and images"
"""The source of settings that change after all layers are merged."""

WIDTH = 110
"""Width of the table, in characters."""

_NO_SETTINGS = ("schema_version", "recipe", "data.source")


class Layer(NamedTuple):
    """Some settings of a recipe, nested as in the recipe, and their source."""

    source: str
    settings: Mapping[str, Any]


def origins(layers: Sequence[Layer], read: Recipe, final: Recipe) -> dict[str, dict[str, Any]]:
    """Return source → setting → value. Each setting appears once, under the source of its value; the last layer wins.

    `read` is the recipe of the merged layers, `final` the recipe after fitting.
    """
    winners: dict[str, tuple[str, Any]] = {}
    for layer in layers:
        for name, value in _leaves(layer.settings).items():
            if value is not None:
                winners[name] = (layer.source, value)
    before, after = (_leaves(recipe.model_dump(mode="json")) for recipe in (read, final))
    winners |= {name: (FITTED, value) for name, value in after.items() if before.get(name) != value}
    origins_by_source: dict[str, dict[str, Any]] = {
        source: {} for source in (*(layer.source for layer in layers), FITTED)
    }
    for name, (source, value) in winners.items():
        if name not in _NO_SETTINGS:
            origins_by_source[source][name] = value
    return {source: settings for source, settings in origins_by_source.items() if settings}


def table(origins_by_source: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of `origins`: the source, then its settings."""
    margin = 2 + max((len(source) for source in origins_by_source), default=0)
    lines: list[str] = []
    for source, settings in origins_by_source.items():
        words = ", ".join(f"{name.partition('.')[2]} {_word(value)}" for name, value in settings.items())
        first, rest = f"  {source:<{margin}}", " " * (margin + 2)
        lines += wrap(words, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return lines


def _leaves(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{above}{name}.")
        else:
            leaves[f"{above}{name}"] = value
    return leaves


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "×".join(map(str, value)) if len(value) < 4 else f"({len(value)} values)"
    return f"{value:g}" if isinstance(value, float) else str(value)
