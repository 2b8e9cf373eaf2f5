"""Corruptions do what their papers say: known numbers, the other library's numbers, the same on every call."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.robustness.corruptions import GROUPS, KINDS, SEVERITIES, corrupt

RANDOM = ("Gaussian noise", "shot noise", "motion blur")
"""What a seed changes."""


def pattern(height, width):
    y, x = np.mgrid[:height, :width]
    parts = [
        127.5 * (1 + np.sin(x / 9) * np.cos(y / 7)), 255 * x / (width - 1), 255 * ((x // 16 + y // 16) % 2)
    ]  # fmt: skip
    return np.stack(parts, 2).astype(np.uint8)


def apart(one, other):
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("shape", [(24, 31), (71, 97)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_everything_and_severities_grow(kind, shape):
    image = pattern(*shape)
    found = [corrupt(kind, severity, image, 3) for severity in SEVERITIES]
    for severity, one in zip(SEVERITIES, found, strict=True):
        assert one.dtype == np.uint8
        assert one.shape == image.shape
        np.testing.assert_array_equal(one, corrupt(kind, severity, image, 3))
    assert (apart(found[1], corrupt(kind, 2, image, 4)) > 0) == (kind in RANDOM)
    changes = [apart(one, image) for one in found]
    if kind != "pixelate":  # coarser pixels of a pattern may happen to meet its own edges
        assert 0 < changes[0] < changes[1] < changes[2]


def test_pixels_grow_with_the_severity_on_the_average():
    images = np.random.default_rng(0).integers(0, 256, (12, 67, 67, 3), dtype=np.uint8)
    changes = [np.mean([apart(corrupt("pixelate", s, one, 0), one) for one in images]) for s in SEVERITIES]
    assert 0 < changes[0] < changes[1] < changes[2]


RECORDED = {
    "defocus blur": ((126.6, 80.9, 12.5), (126.6, 68.8, 24.6), (128.0, 54.3, 39.3)),
    "motion blur": ((127.5, 84.2, 16.0), (128.9, 70.5, 40.8), (130.7, 58.2, 56.6)),
    "brightness": ((132.9, 94.4, 5.9), (141.8, 97.2, 14.8), (147.0, 99.5, 20.1)),
    "contrast": ((126.7, 37.2, 48.8), (126.9, 18.6, 65.1), (126.7, 4.5, 77.4)),
    "pixelate": ((127.4, 90.8, 4.6), (127.3, 87.1, 10.4), (127.3, 92.6, 3.9)),
    "JPEG": ((127.2, 87.3, 8.0), (127.4, 86.8, 9.4), (127.3, 86.0, 12.6)),
}
"""Mean, deviation and mean change that imagecorruptions-imaug 1.1.5 gives for the pattern; whole images are compared by
`bench/robustness_oracles.py`. It cuts off after the point where ours rounds, which is half a grey value, and
its largest disk has a sum of a little more than 1."""


@pytest.mark.parametrize("kind", RECORDED)
def test_numbers_are_those_of_the_other_library(kind):
    image = pattern(224, 224)
    for severity, numbers in zip(SEVERITIES, RECORDED[kind], strict=True):
        one = corrupt(kind, severity, image, 7).astype(float)
        np.testing.assert_allclose((one.mean(), one.std(), apart(one, image)), numbers, atol=1)


def test_noise_has_the_deviation_of_its_table():
    grey = np.full((200, 200, 3), 128, np.uint8)
    for severity, deviation in ((1, 0.08), (2, 0.18)):
        change = corrupt("Gaussian noise", severity, grey, 0) / 255.0 - 128 / 255
        assert change.std() == pytest.approx(deviation, rel=0.03)
    photons = corrupt("shot noise", 1, grey, 0) / 255.0
    assert photons.var() == pytest.approx(128 / 255 / 60, rel=0.05)
    assert photons.mean() == pytest.approx(128 / 255, abs=2e-3)


def test_a_point_becomes_a_disk_and_a_streak():
    image = np.zeros((224, 224, 1), np.uint8)
    image[112, 112] = 255
    disk = corrupt("defocus blur", 1, image, 0)[..., 0]
    inside = sum(i * i + j * j <= 9 for i in range(-3, 4) for j in range(-3, 4))
    assert (disk > 0).sum() == inside
    assert disk[112, 112] == disk.max() == round(255 / inside)
    streak = corrupt("motion blur", 2, image, 5)[..., 0].astype(float)
    assert streak.sum() == pytest.approx(255, abs=12)
    rows, cols = np.nonzero(streak)
    assert 0 < np.ptp(rows) + np.ptp(cols) <= 2 * 31
    angle = np.random.default_rng(5).uniform(-45, 45)
    slope = np.degrees(np.arctan2(rows - 112, cols - 112)) % 180
    far = np.hypot(rows - 112, cols - 112) > 8
    np.testing.assert_allclose(slope[far], angle % 180, atol=4)


@pytest.mark.parametrize("kind", ["defocus blur", "motion blur", "contrast", "pixelate"])
@pytest.mark.parametrize("shape", [(5, 3, 3), (70, 130, 1)])
def test_a_plain_image_stays_plain(kind, shape):
    plain = np.full(shape, 77, np.uint8)
    for severity in SEVERITIES:
        np.testing.assert_array_equal(corrupt(kind, severity, plain, 0), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey_and_alpha_stays(kind):
    image = pattern(40, 48)
    assert corrupt(kind, 2, image[..., :1], 0).shape == (40, 48, 1)
    alpha = np.arange(40 * 48, dtype=np.uint32).reshape(40, 48, 1).astype(np.uint8)
    whole = corrupt(kind, 2, np.concatenate([image, alpha], 2), 0)
    np.testing.assert_array_equal(whole[..., 3:], alpha)
    np.testing.assert_array_equal(whole[..., :3], corrupt(kind, 2, image, 0))


def test_black_becomes_brighter_too():
    black = np.zeros((80, 80, 3), np.uint8)
    assert (corrupt("brightness", 1, black, 0) == round(0.1 * 255)).all()


def test_every_kind_is_in_one_group():
    assert sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(KINDS)


def test_what_cannot_be_corrupted_is_refused():
    image = pattern(8, 8)
    with pytest.raises(UnknownNameError, match="defocus blur"):
        corrupt("defocus", 1, image, 0)
    with pytest.raises(SettingError, match="severity 4"):
        corrupt("JPEG", 4, image, 0)
    for wrong in (image.astype(np.float32), image[..., :2], image[..., 0]):
        with pytest.raises(SettingError, match="8 bits"):
            corrupt("JPEG", 1, wrong, 0)
