"""Scores against time: the operating points of a model, and other networks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from vitrail.plots.colours import ACCENT, FAINT, INK, SERIES
from vitrail.plots.interval_figures import Bar


class FrontPoint(NamedTuple):
    """A score with its interval at a cost; `beaten` ones are drawn faintly, `other` ones are of other networks."""

    cost: float
    bar: Bar
    beaten: bool = False
    other: bool = False


def front(points: Sequence[FrontPoint], x: str, y: str) -> Figure:
    """Return scores against costs; a line joins the points of the model that no other one beats."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    best = sorted((one for one in points if not one.beaten and not one.other), key=lambda one: one.cost)
    axes.plot(
        [one.cost for one in best], [one.bar.value for one in best], color=ACCENT, linewidth=1.5, zorder=2
    )
    others = cycle(colour for colour in SERIES if colour != ACCENT)
    for one in points:
        own = FAINT if one.beaten else ACCENT
        colour = next(others) if one.other else own
        low, high = one.bar.value - one.bar.low, one.bar.high - one.bar.value
        axes.errorbar(
            one.cost, one.bar.value, yerr=[[max(0.0, low)], [max(0.0, high)]], fmt="D" if one.other else "o",
            color=colour, alpha=0.55 if one.beaten else 1.0, markersize=5 if one.beaten else 7,
            elinewidth=0.8, zorder=2 if one.beaten else 3,
        )  # fmt: skip
    named = sorted((one for one in points if one.other or not one.beaten), key=lambda one: one.cost)
    for one, below in zip(named, cycle((True, False))):
        axes.annotate(
            one.bar.name, (one.cost, one.bar.value), xytext=(6, -12 if below else 7), textcoords="offset points",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
