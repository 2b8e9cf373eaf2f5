from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from vitrail.data.resize import INTERPOLATIONS, Interpolation, Span, resize, taps

SIZES = [
    ((375, 500), (256, 341)),
    ((61, 97), (224, 224)),  # larger
    ((900, 1200), (64, 86)),  # so large that it is resized in bands
    ((7, 300), (31, 5)),
    ((1, 40), (9, 12)),
    ((20, 30), (20, 9)),
    ((5, 5), (1, 3)),
    ((6, 500), (40, 30)),
]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_it_is_torch_s_antialiased_resize(
    size: tuple[tuple[int, int], tuple[int, int]], channels: int, mode: Interpolation
) -> None:
    (height, width), whole = size
    image = noise(height, width, channels)
    image.flags.writeable = False  # as a decoder hands it out
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
    rows, cols = (Span(side, 0, side) for side in whole)
    theirs = interpolate(pixels[None], whole, mode=mode, antialias=True)[0]
    ours = resize(image, rows, cols, mode)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)  # of 255


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_a_part_is_that_part_of_the_whole(mode: Interpolation) -> None:
    image = noise(375, 500)
    whole = resize(image, Span(256, 0, 256), Span(341, 0, 341), mode)
    part = resize(image, Span(256, 16, 224), Span(341, 58, 224), mode)
    torch.testing.assert_close(part, whole[:, 16:240, 58:282], atol=1e-4, rtol=0)


@pytest.mark.parametrize("width", [1, 6])
def test_a_picture_of_one_pixel_s_width_too(width: int) -> None:
    """Where torch 2.15 repeats the first row, but not for the same image lying on its side."""
    image = noise(10, width)
    lying = torch.from_numpy(image).permute(2, 1, 0).float()
    theirs = interpolate(lying[None], (1, 23), mode="bicubic", antialias=True)[0].mT
    ours = resize(image, Span(23, 0, 23), Span(1, 0, 1))
    torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_weights_sum_to_one_and_lie_on_the_picture(mode: Interpolation) -> None:
    for length in (1, 2, 5, 40, 3000):
        for whole in (1, 3, 40, 256):
            found = taps(length, Span(whole, 0, whole), mode)
            np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-5)
            assert found.places.min() >= 0
            assert found.places.max() < length


def test_the_same_size_is_left_alone() -> None:
    image = noise(13, 17)
    shown = resize(image, Span(13, 2, 9), Span(17, 0, 17))
    assert torch.equal(shown, torch.from_numpy(image[2:11]).permute(2, 0, 1).float())
