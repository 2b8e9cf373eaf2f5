"""Figures with axes: curves, similarities, distances, calibration. Matplotlib, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitrail.plots.colours import ACCENT, FAINT, INK, SECOND, SERIES
from vitrail.plots.images import THIN

MANY = 4
"""More lines have their legend beside the figure."""

Line = Sequence[tuple[float, float]]


def curves(
    series: Mapping[str, Line], x: str, y: str, bands: Mapping[str, Line] = MappingProxyType({})
) -> Figure:
    """Return a figure with one line per name, each a sequence of (x, y).

    `bands` holds the intervals (low, high) of the points of some lines, which are shaded.
    """
    many = len(series) > MANY
    figure = Figure(figsize=(8.2 if many else 6.2, 3.2))
    axes = figure.subplots()
    for place, ((name, points), colour) in enumerate(zip(series.items(), cycle(SERIES))):
        xs, ys = zip(*points, strict=True) if points else ((), ())
        style = "-" if place < len(SERIES) else "--"
        label = name.replace("_", " ")
        axes.plot(xs, ys, label=label, color=colour, linestyle=style, linewidth=2, marker="o", markersize=3)
        if band := bands.get(name):
            low, high = zip(*band, strict=True)
            axes.fill_between(xs, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if many:  # beside the lines, which it would hide
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
    elif len(series) > 1:
        axes.legend(frameon=False)
    return figure


class Fan(NamedTuple):
    """A learning curve to draw, in per cent: redraws (size, score), and at sizes (m,) low, middle, high; all images."""

    redraws: Sequence[tuple[float, float]]
    sizes: Sequence[float]
    band: tuple[Sequence[float], Sequence[float], Sequence[float]]
    largest: float


def fan(one: Fan, score: str) -> Figure:
    """Return a learning curve: what was measured, the median curve, its 80 % band to twice the images, grey beyond."""
    figure = Figure(figsize=(6.2, 3.6))
    axes = figure.subplots()
    sizes = np.asarray(one.sizes)
    low, middle, high = (np.asarray(part) for part in one.band)
    sure, weak = sizes <= 2.001 * one.largest, sizes >= 1.999 * one.largest
    for part, colour, name in ((sure, ACCENT, "80 % sure"), (weak, FAINT, "a weak guess")):
        axes.fill_between(
            sizes[part], low[part], high[part], color=colour, alpha=0.22, linewidth=0, label=name
        )
        axes.plot(sizes[part], middle[part], color=colour, linewidth=2)
    if one.redraws:
        xs, ys = zip(*one.redraws, strict=True)
        axes.scatter(xs, ys, s=22, color=SECOND, edgecolor=INK, linewidth=0.5, zorder=3, label="measured")
    axes.axvline(one.largest, color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    ticks = sorted({*(x for x, _ in one.redraws), 2 * one.largest, 4 * one.largest})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel(f"{score}, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize="small")
    return figure


def similarity_tiles(values: NDArray[np.floating], most: int = 16) -> Figure:
    """Return one tile per grid cell with its similarity to all other cells: (row, col, row, col) of -1 … 1.

    In larger grids only every second (third …) cell has a tile.
    """
    step = max(1, -(-max(values.shape[:2]) // most))
    first = [min(step // 2, side // 2) for side in values.shape[:2]]
    tiles = values[first[0] :: step, first[1] :: step]
    rows, cols = tiles.shape[:2]
    gap = 1
    tall, wide = tiles.shape[2] + gap, tiles.shape[3] + gap
    sheet = np.full((rows * tall - gap, cols * wide - gap), np.nan)
    for row in range(rows):
        for col in range(cols):
            sheet[row * tall : row * tall + tall - gap, col * wide : col * wide + wide - gap] = tiles[
                row, col
            ]
    figure = Figure(figsize=(6.4, 6.4 * min(THIN, max(1 / THIN, sheet.shape[0] / sheet.shape[1]))))
    axes = figure.subplots()
    image = axes.imshow(sheet, cmap="viridis", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("column of the patch")
    axes.set_ylabel("row of the patch")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.7, label="cosine similarity")
    return figure


def reach(layers: Sequence[Sequence[float]], even: Sequence[float]) -> Figure:
    """Plot the mean attention distance in pixels over depth: one dot per head, and the line of uniform attention."""
    figure = Figure(figsize=(6.2, 3.6))
    axes = figure.subplots()
    depth = range(1, len(layers) + 1)
    for turn, heads in zip(depth, layers, strict=True):
        axes.scatter(
            [turn] * len(heads), heads, s=18, color=ACCENT, zorder=3, label="a head" if turn == 1 else None
        )
    axes.plot(depth, even, color=SECOND, linewidth=1.5, linestyle="--", label="even attention")
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("mean attention distance, pixels")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def reliability(bins: Sequence[tuple[float, float, float, float, int]]) -> Figure:
    """Return a reliability diagram: accuracy with intervals over confidence, and the number of predictions below it.

    Each bin is (mean probability, accuracy, its low, its high, predictions).
    """
    figure = Figure(figsize=(5.2, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color="#5d6875", linewidth=1, linestyle="--", label="perfectly calibrated")
    sure, right, low, high, answers = (np.array(part) for part in zip(*bins, strict=True))
    reach = np.maximum(np.stack([right - low, high - right]), 0)
    upper.errorbar(sure, right, reach, fmt="o", color=ACCENT, capsize=3, label="this model, 95 % interval")
    upper.set_ylabel("share that was right")
    upper.set_ylim(-0.03, 1.03)
    upper.legend(frameon=False, loc="lower right", fontsize="small")
    lower.bar(sure, answers, width=0.045, color=SECOND)
    lower.set_ylabel("answers")
    lower.set_xlabel("probability of the answer")
    lower.set_xlim(-0.03, 1.03)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
