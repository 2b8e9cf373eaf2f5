"""Where each setting of a recipe comes from: from which layer, or from fitting it to network and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from vitrail.runs.recipe import Recipe

FITTED = "fitted to network and images"
"""The source of what was changed after all layers were laid."""

WIDTH = 110
"""Characters of a line of the table."""

_NO_SETTINGS = ("schema_version", "recipe", "data.source")


class Layer(NamedTuple):
    """Some settings of a recipe, nested as there, and who states them."""

    source: str
    settings: Mapping[str, Any]


def origins(layers: Sequence[Layer], read: Recipe, final: Recipe) -> dict[str, dict[str, Any]]:
    """Return source → setting → value, each setting once, where its value comes from; the last layer wins.

    `read` is the recipe of the layers alone, `final` what became of it.
    """
    won: dict[str, tuple[str, Any]] = {}
    for layer in layers:
        for name, value in _leaves(layer.settings).items():
            if value is not None:
                won[name] = (layer.source, value)
    before, after = (_leaves(one.model_dump(mode="json")) for one in (read, final))
    won |= {name: (FITTED, value) for name, value in after.items() if before.get(name) != value}
    found: dict[str, dict[str, Any]] = {source: {} for source in (*(one.source for one in layers), FITTED)}
    for name, (source, value) in won.items():
        if name not in _NO_SETTINGS:
            found[source][name] = value
    return {source: settings for source, settings in found.items() if settings}


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of `origins`: a source, then its settings."""
    margin = 2 + max((len(source) for source in found), default=0)
    lines: list[str] = []
    for source, settings in found.items():
        words = ", ".join(f"{name.partition('.')[2]} {_word(value)}" for name, value in settings.items())
        first, rest = f"  {source:<{margin}}", " " * (margin + 2)
        lines += wrap(words, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return lines


def _leaves(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= (
            _leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
        )
    return found


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "×".join(map(str, value)) if len(value) < 4 else f"({len(value)} values)"
    return f"{value:g}" if isinstance(value, float) else str(value)
