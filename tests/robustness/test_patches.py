"""Patches that are dropped and shuffled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.robustness.patches import dropped, random_order, salient_order, shuffled

GRID = (3, 5)


@pytest.fixture
def images():
    return torch.arange(1.0, 2 * 3 * 13 * 17 + 1).view(2, 3, 13, 17)


def test_an_image_always_loses_the_same_patches_and_more_of_them(images):
    orders = [random_order(GRID, one, seed=0) for one in ("a", "b")]
    assert sorted(orders[0]) == list(range(15))
    assert orders[0].tolist() == random_order(GRID, "a", seed=0).tolist()
    assert orders[0].tolist() != orders[1].tolist()
    before = torch.zeros(images.shape, dtype=torch.bool)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        now = dropped(images, orders, GRID, share)
        gone = now == 0
        assert (gone | ~before).all(), "what a smaller share drops a larger one drops too"
        torch.testing.assert_close(now[~gone], images[~gone], rtol=0, atol=0)
        assert gone.float().mean() == pytest.approx(share, abs=0.06)
        assert (gone == gone[:, :1]).all(), "all channels of a pixel"
        before = gone
    assert torch.equal(dropped(images, orders, GRID, 0.0), images)


def test_the_most_salient_patches_go_first(images):
    heat = torch.zeros(GRID)
    heat[1, 2], heat[2, 4], heat[0, 0] = 3.0, 2.0, 1.0
    order = salient_order(heat)
    assert order[:4].tolist() == [7, 14, 0, 1]
    gone = dropped(images, [order, order], GRID, 1 / 15) == 0
    rows, cols = np.nonzero(gone[0, 0].numpy())
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (4, 8, 7, 9)


def test_shuffled_pieces_are_the_same_pieces_elsewhere(images):
    mixed = shuffled(images, ("a", "b"), 4, seed=0)
    assert not torch.equal(mixed, images)
    assert torch.equal(mixed[..., 12:, :], images[..., 12:, :])
    assert torch.equal(mixed[..., 16:], images[..., 16:])

    def pieces(image):
        return sorted(
            tuple(image[:, 3 * i : 3 * i + 3, 4 * j : 4 * j + 4].flatten().tolist())
            for i in range(4)
            for j in range(4)
        )

    for one, other in zip(mixed, images, strict=True):
        assert pieces(one) == pieces(other)
    assert torch.equal(mixed[:1], shuffled(images[:1], ("a",), 4, seed=0)), "an image alone as in a batch"


def test_more_pieces_than_pixels_change_nothing(images):
    assert torch.equal(shuffled(images, ("a", "b"), 14, seed=0), images)
    assert torch.equal(shuffled(images, ("a", "b"), 1, seed=0), images)
