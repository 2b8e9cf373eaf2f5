"""The graph's own resize, crop and pad give the numbers of the package's one preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import INTERPOLATIONS
from vitrail.export.graph import Prepare, plan

SIZES = [
    (1, 1),
    (17, 23),
    (23, 17),
    (32, 48),
    (48, 32),
    (61, 47),
    (73, 1),
    (375, 500),
    (601, 397),
    (1500, 997),
]
FITS = [
    ("squash", 1.0), ("squash", 0.9), ("crop", 0.875), ("crop", 1.0), ("crop", 0.6), ("pad", 1.0), ("pad", 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("fit", "fraction"), FITS)
@pytest.mark.parametrize("size", [(32, 48), (56, 40), (224, 224)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_matrix_products_equal_the_resize_to_a_ten_thousandth(fit, fraction, size, interpolation):
    steps = Preprocess(size, fit, fraction, interpolation=interpolation)
    prepare = Prepare(steps)
    draw = np.random.default_rng(0)
    for shape in SIZES:
        image = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
        wanted, _ = steps.eval(image)
        found = prepare(torch.from_numpy(image))[0]
        apart = (wanted - found).abs() * torch.tensor(steps.std).view(-1, 1, 1)  # in parts of 255
        assert apart.max() < 1e-4, (shape, float(apart.max()))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_largest_photograph_agrees_too(interpolation):
    steps = Preprocess((64, 64), "crop", interpolation=interpolation)
    image = np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    wanted, _ = steps.eval(image)
    apart = (wanted - Prepare(steps)(torch.from_numpy(image))[0]).abs().max() * 0.25
    assert apart < 1e-4


@pytest.mark.parametrize(("fit", "fraction"), FITS)
def test_sizes_and_corners_are_the_same_whole_numbers_everywhere(fit, fraction):
    """Halves are where integers and floats part; every shape up to 90 is asked."""
    for size in ((32, 32), (32, 48), (15, 7)):
        steps = Preprocess(size, fit, fraction)
        tall, wide = (
            t.flatten() for t in torch.meshgrid(torch.arange(1, 91), torch.arange(1, 91), indexing="ij")
        )
        down, across = plan(steps, tall, wide)
        for i, (height, width) in enumerate(zip(tall.tolist(), wide.tolist(), strict=True)):
            known = steps._plan(height, width)
            assert (int(down.new[i]), int(across.new[i])) == known.resized, (height, width)
            assert (int(down.corner[i]), int(across.corner[i])) == known.corner, (height, width)
