"""Figures of scores with their intervals: one row a name, differences around a region, scores against cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from vitrail.plots.colours import ACCENT, INK, SERIES


class Bar(NamedTuple):
    """A value with its interval under a name; `points` are single runs, drawn faintly."""

    name: str
    value: float
    low: float
    high: float
    points: Sequence[float] = ()


def intervals(bars: Sequence[Bar], x: str, region: float | None = None) -> Figure:
    """Return a figure with one row a bar, the first on top; `region` shades ± so much around 0."""
    figure = Figure(figsize=(7.2, 0.9 + 0.55 * len(bars)), layout="constrained")
    axes = figure.subplots()
    if region is not None:
        axes.axvspan(-region, region, color=INK, alpha=0.08, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1, alpha=0.6)
    for row, bar in enumerate(reversed(bars)):
        colour = ACCENT if region is not None else SERIES[(len(bars) - 1 - row) % len(SERIES)]
        axes.plot(bar.points, [row] * len(bar.points), ".", color=colour, alpha=0.35, markersize=5)
        axes.plot((bar.low, bar.high), (row, row), color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(bar.value, row, "o", color=colour, markersize=8)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlabel(x)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def costs(panels: Sequence[tuple[str, Sequence[tuple[float, Bar]]]], y: str) -> Figure:
    """Return scores against costs on logarithmic axes: a panel a cost, with its name and (cost, bar) of each name."""
    figure = Figure(figsize=(3.7 * len(panels), 3.3), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(every, panels, strict=True):
        for (cost, bar), colour in zip(found, cycle(SERIES)):
            axes.errorbar(
                cost, bar.value, yerr=[[bar.value - bar.low], [bar.high - bar.value]], fmt="o", color=colour,
                markersize=7, capsize=3,
            )  # fmt: skip
            axes.annotate(
                bar.name,
                (cost, bar.value),
                xytext=(7, 5),
                textcoords="offset points",
                color=colour,
                fontsize=9,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([cost for cost, _ in found]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.35, y=0.2)
        axes.set_xlabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel(y)
    return figure
