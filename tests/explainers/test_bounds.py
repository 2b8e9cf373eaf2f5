"""Images far longer than wide, or far larger than a screen: drawn within bounds on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail import plots
from vitrail.data.batch import Geometry
from vitrail.explainers import to_original
from vitrail.explainers.to_original import onto_original

MOST = 8_000_000
"""Pixels of a drawing at most; 5,000 × 2 px were 640,000 × 256."""


@pytest.mark.parametrize("size", [(5000, 2), (2, 5000), (1, 1), (1, 300), (40_000, 1), (1, 2_000_000)])
def test_everything_that_is_drawn_of_a_strip_is_small(size):
    image = Image.new("RGB", size, "red")
    values = np.ones((size[1], size[0]), np.float32)
    drawn = [
        plots.shown(image),
        plots.shown(image, 448),
        plots.heat(image, values),
        plots.label_bars(image, [("circle", 0.9), ("square", 0.1)]),
        plots.titled(plots.shown(image), "rollout"),
    ]
    for one in [*drawn, plots.beside(*drawn)]:
        assert one.width * one.height < MOST
    assert plots.photo_uri(image).startswith("data:image/jpeg")


def test_pictures_of_usual_shapes_are_enlarged_as_ever():
    for width, height in ((8, 8), (32, 20), (300, 40), (640, 480), (256, 32)):
        factor = -(-256 // min(width, height))
        assert plots.shown(Image.new("L", (width, height))).size == (width * factor, height * factor)


def test_grids_far_longer_than_wide_are_small_too():
    grid = np.random.default_rng(0).random((12, 1, 400)).astype(np.float32)
    drawn = plots.heat_grid([grid, grid])
    assert drawn.width * drawn.height < MOST
    cut = plots.squares_apart(Image.new("RGB", (8, 20_000)), 8, 3)
    assert cut.width * cut.height < MOST
    assert plots.photo_uri(cut).startswith("data:image/jpeg")
    for shape in ((1, 200), (200, 1)):
        figure = plots.similarity_tiles(np.zeros((*shape, *shape), np.float32))
        assert max(figure.get_size_inches()) <= 6.4 * plots.THIN
        assert plots.data_uri(figure).startswith("data:image/png")


def test_a_map_is_coloured_strip_by_strip_as_in_one(monkeypatch):
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 255, (37, 300, 3), dtype=np.uint8))
    values = draw.random((37, 300)).astype(np.float32)
    values[:, :20] = np.nan
    whole = np.asarray(plots.heat(image, values))
    monkeypatch.setattr("vitrail.plots.images.STRIP", 1000)
    assert np.array_equal(np.asarray(plots.heat(image, values)), whole)


def test_a_map_is_spread_run_by_run_as_in_one(monkeypatch):
    grid = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    geometry = Geometry((90, 70), (32, 32), (5.0, 0.0, 85.0, 70.0))
    whole = onto_original(grid, geometry)
    monkeypatch.setattr(to_original, "RUN", 16)
    assert np.allclose(onto_original(grid, geometry), whole, rtol=0, atol=1e-6, equal_nan=True)
