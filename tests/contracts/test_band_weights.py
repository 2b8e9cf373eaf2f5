"""Weights of photographs meet named bands by what these mean, and weights of bands by their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitrail.core.errors import WeightsError
from vitrail.models.factory import build, config_of
from vitrail.weights.convert import _write_own
from vitrail.weights.first_layer import adapted, said_of_bands
from vitrail.weights.pretrained import Pretrained, from_path

BANDS = ("VV", "B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Random weights of three colours, as a file."""
    torch.manual_seed(0)
    config = replace(config_of("vit_digits"), channels=3)
    path = tmp_path_factory.mktemp("weights") / "photo.safetensors"
    _write_own(Pretrained("photo", config, build(config).state_dict(), {}, "vitrail"), path)
    return from_path(path)


def kernel_of(encoder, channels):
    return next(t for t in encoder.state_dict().values() if t.ndim == 4 and t.shape[1] == channels)


def test_colours_take_their_kernels_and_other_bands_the_mean(photographs):
    red, green, blue = kernel_of(photographs.build(), 3).unbind(1)
    mean = (red + green + blue) / 3
    found = kernel_of(photographs.build(channels=5, bands=BANDS), 5)
    expected = torch.stack((mean, blue, green, red, mean), 1) * 3 / 5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_three_bands_in_another_order_are_the_same_network(photographs):
    colour, bands = photographs.build(), photographs.build(channels=3, bands=("B02", "green", "scene B04"))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        colour(images).tokens.x, bands(images[:, [2, 1, 0]]).tokens.x, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("bands", [("VV",), ("VV", "VH"), BANDS[:1] * 2 + ("DEM",) * 5])
def test_equal_bands_give_the_size_of_equal_colours(photographs, bands):
    grey = torch.randn(2, 1, 8, 8)
    colour, other = photographs.build(), photographs.build(channels=len(bands), bands=bands)
    one, two = colour(grey.expand(2, 3, 8, 8)), other(grey.expand(2, len(bands), 8, 8))
    torch.testing.assert_close(one.tokens.x, two.tokens.x, rtol=0, atol=1e-5)


def test_weights_of_bands_are_taken_by_name():
    kernel = torch.randn(4, 3, 2, 2)
    known = ("VV", "B08", "B11")
    torch.testing.assert_close(adapted(kernel, ("B11", "vv", "B08"), known), kernel[:, [2, 0, 1]])
    other = adapted(kernel, ("B08", "VH"), known)
    torch.testing.assert_close(other, torch.stack((kernel[:, 1], kernel.mean(1)), 1) * 3 / 2)


def test_a_network_that_mixes_channels_and_pixels_at_once_is_refused():
    config = config_of("t2t_vit_7")
    found = Pretrained("t2t", config, build(config).state_dict(), {}, "vitrail")
    with pytest.raises(
        WeightsError, match=r"t2t cannot be adapted to VV, B02, B03 and 2 more: .* --weights none"
    ):
        found.build(channels=5, bands=BANDS)


def test_what_is_taken_is_said():
    assert said_of_bands(BANDS) == (
        "B02 (blue), B03 (green), B04 (red) take the kernels of these colours, VV, B08 the mean of red, green, blue."
    )
    assert said_of_bands(("VV",)) == "VV takes the mean of red, green, blue."
