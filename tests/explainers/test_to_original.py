"""Where a map lands on the original image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail import plots
from vitrail.data.batch import Geometry
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.to_original import onto_original


@pytest.mark.parametrize(("fit", "crop"), [("squash", 1.0), ("crop", 0.875), ("crop", 1.0), ("pad", 1.0)])
@pytest.mark.parametrize("shape", [(60, 130), (130, 60), (41, 41)])
def test_a_spot_lands_where_it_was_on_the_original(fit, crop, shape):
    """Brightness itself is the map: a bright square on the original must come back to its own place."""
    image = np.zeros((*shape, 3), dtype=np.uint8)
    middle = (shape[0] // 2 - 6, shape[1] // 2 + 3)
    image[middle[0] : middle[0] + 9, middle[1] : middle[1] + 9] = 255
    preprocess = Preprocess((64, 64), fit, crop)
    pixels, geometry = preprocess.eval(image)
    # The ground of a padded image is grey: only what is brighter counts.
    grid = (
        (preprocess.restore(pixels)[0] - 130)
        .clamp(min=0)
        .unflatten(0, (32, 2))
        .unflatten(2, (32, 2))
        .mean((1, 3))
    )
    heat = onto_original(grid.numpy(), geometry)
    assert heat.shape == shape
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    mass = np.nan_to_num(heat)
    centre = (mass * rows).sum() / mass.sum(), (mass * cols).sum() / mass.sum()
    assert centre == pytest.approx((middle[0] + 4.5, middle[1] + 4.5), abs=0.6)
    assert np.isnan(heat).any() == (fit == "crop" and (crop < 1 or shape[0] != shape[1]))


def test_nothing_is_shown_where_nothing_was_seen():
    heat = onto_original(np.ones((2, 2), np.float32), Geometry((10, 20), (8, 8), (0.0, 5.0, 10.0, 15.0)))
    assert np.isnan(heat[:, :5]).all()
    assert np.isnan(heat[:, 15:]).all()
    assert np.isfinite(heat[:, 5:15]).all()


def test_heat_is_drawn_for_tiny_and_blank_pictures():
    for values in (np.zeros((8, 8)), np.full((8, 8), np.nan), np.eye(8)):
        drawn = plots.heat(Image.new("L", (8, 8)), values.astype(np.float32))
        assert drawn.width == 256
