"""Figures of the inside of a network, and the HTML page with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vitrail import plots
from vitrail.core.files import make_folder, write_text
from vitrail.explainers.network_analysis import Filters, Inside
from vitrail.pages import render


def write_inside(found: Inside, folder: Path) -> Path:
    """Write the figures and inside.html into a folder; return the path of the page."""
    make_folder(folder)
    figures = drawn(found)
    for name, figure in figures.items():
        plots.write_image(folder / f"{name}.png", figure)
    values = {
        "name": found.name,
        "figures": {name: plots.data_uri(figure) for name, figure in figures.items()},
        "pictures": found.pictures,
        "missing": found.missing,
    }
    page = folder / "inside.html"
    write_text(page, render("inside.html", values))
    return page


def drawn(found: Inside) -> dict[str, Image.Image | Figure]:
    """Return the available figures, by name: filters, positions, distance."""
    figures: dict[str, Image.Image | Figure] = {}
    if found.filters is not None:
        figures["filters"] = filter_tiles(found.filters)
    if found.places is not None:
        figures["positions"] = plots.similarity_tiles(found.places.numpy())
    if found.reaches:
        heads = [reach.heads for reach in found.reaches]
        figures["distance"] = plots.reach(heads, [reach.uniform for reach in found.reaches])
    return figures


def filter_tiles(found: Filters, across: int = 7, side: int = 64, gap: int = 4) -> Image.Image:
    """Return the components as tiles, each scaled from its minimum to its maximum; grey if not 3 channels."""
    tiles = found.components.numpy()
    tiles = tiles if tiles.shape[-1] == 3 else tiles.mean(-1, keepdims=True).repeat(3, -1)
    low, high = tiles.min((1, 2, 3), keepdims=True), tiles.max((1, 2, 3), keepdims=True)
    tiles = ((tiles - low) / np.maximum(high - low, 1e-12) * 255).round().astype(np.uint8)
    down = math.ceil(len(tiles) / across)
    size = (across * (side + gap) - gap, down * (side + gap) - gap)
    sheet = Image.new("RGB", size, plots.PAPER)
    for turn, tile in enumerate(tiles):
        picture = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (turn % across * (side + gap), turn // across * (side + gap)))
    return sheet
