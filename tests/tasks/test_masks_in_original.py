"""Masks of a network in the pixels of the image."""

import numpy as np
import pytest
import torch

from vitrail.data.instances import from_runs
from vitrail.data.preprocess import Preprocess
from vitrail.data.view import maps_in_original, points_in_input
from vitrail.tasks.instances.masks import Onto, cut_to


def blob(seed, rows, cols):
    """Return a smooth map of logits with a few positive parts."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, 7, 7))).float()
    return torch.nn.functional.interpolate(noise, (rows, cols), mode="bicubic")[0, 0] - 0.4


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(96, 96), (61, 140), (203, 88), (1, 50)])
def test_a_mask_is_the_whole_map_interpolated_and_then_cut_at_zero(fit, shape):
    geometry = Preprocess(size=(64, 96), fit=fit).geometry(*shape)
    logits = blob(sum(shape), 16, 24)
    runs = Onto.of(geometry, 16, 24).mask(logits)
    whole = maps_in_original(geometry, logits[None], fill=-1.0)[0].numpy() > 0
    assert (
        from_runs([runs], shape)[0] != whole
    ).mean() < 2e-4  # a pixel exactly between may be rounded otherwise


def test_a_mask_without_a_positive_cell_is_empty():
    onto = Onto.of(Preprocess(size=(64, 64)).geometry(50, 70), 16, 16)
    assert not from_runs([onto.mask(torch.full((16, 16), -1.0))], (50, 70)).any()


def test_a_disc_keeps_its_centre():
    geometry = Preprocess(size=(128, 128), fit="pad").geometry(90, 150)
    y, x = np.mgrid[:32, :32] * 4 + 2.0
    # A disc at (x, y) = (100, 40) of the image, drawn in cells of the input.
    scale = 128 / 150
    (centre,) = points_in_input(geometry, np.array([[100.0, 40.0]]))
    far = np.hypot(x - centre[0], y - centre[1])
    runs = Onto.of(geometry, 32, 32).mask(torch.from_numpy(20 * scale - far).float())
    rows, cols = np.nonzero(from_runs([runs], (90, 150))[0])
    assert abs(cols.mean() + 0.5 - 100) < 0.25
    assert abs(rows.mean() + 0.5 - 40) < 0.25


def test_what_lies_far_outside_the_box_is_cut():
    cut = cut_to(torch.ones(10, 10), torch.tensor([0.2, 0.2, 0.6, 0.6]), 0.25)
    assert (cut > 0).nonzero().amin(0).tolist() == [1, 1]
    assert (cut > 0).nonzero().amax(0).tolist() == [6, 6]
