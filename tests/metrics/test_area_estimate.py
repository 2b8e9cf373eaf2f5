"""Areas from a reference sample: a published example, a simulation with a known truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.core.errors import DataError
from vitrail.metrics.area_estimate import Z, estimate_areas

# Olofsson et al. 2014 (doi:10.1016/j.rse.2014.02.015), section 5 and Table 8: published.
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
SAMPLE = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)
HECTARES = 0.09
"""Hectares of a pixel of 30 m."""


def test_the_published_example():
    found = estimate_areas(NAMES, SAMPLE, [HECTARES * one for one in PIXELS])
    assert [round(one.area.value) for one in found.classes] == [21158, 11686, 285770, 581386]
    assert [round(1.96 * one.area.error) for one in found.classes] == [6158, 3756, 15510, 16282]


def test_the_published_accuracies():
    found = estimate_areas(NAMES, SAMPLE, PIXELS)
    users = [(round(one.users.value, 2), round(Z * one.users.error, 2)) for one in found.classes]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert [round(one.producers.value, 2) for one in found.classes] == [0.75, 0.85, 0.93, 0.96]
    assert (round(found.accuracy.value, 2), round(Z * found.accuracy.error, 2)) == (0.95, 0.02)


SHARES = np.array([[0.85, 0.10, 0.05], [0.08, 0.90, 0.02], [0.04, 0.06, 0.90]])
"""What is really there (columns) where a class is mapped (rows)."""

MAPPED = np.array([2_000.0, 30_000.0, 68_000.0])


def draws(number, places=(150, 200, 300)):
    draw = np.random.default_rng(7)
    samples = zip(
        *(draw.multinomial(n, share, number) for n, share in zip(places, SHARES, strict=True)), strict=True
    )
    return [estimate_areas("abc", np.stack(one), MAPPED) for one in samples]


def test_estimates_are_unbiased_and_their_intervals_cover():
    found = draws(3000)
    joint = MAPPED[:, None] * SHARES
    truth = {
        "area": joint.sum(0),
        "users": np.diagonal(SHARES),
        "producers": np.diagonal(joint) / joint.sum(0),
    }
    for name, expected in truth.items():
        values = np.array([[getattr(one, name) for one in each.classes] for each in found])  # (draws, k, 2)
        slack = (
            0.02 if name == "producers" else 0.001
        )  # a ratio of two estimates, unbiased in large samples only
        bias = values[..., 0].mean(0) - expected
        assert (np.abs(bias) < 4 * values[..., 0].std(0) / np.sqrt(len(found)) + slack * expected).all(), name
        held = (np.abs(values[..., 0] - expected) <= Z * values[..., 1]).mean(0)
        # Shares near 1 are skewed, and their normal intervals a little short.
        least = {"area": 0.935, "users": 0.92, "producers": 0.9}[name]
        assert ((held > least) & (held < 0.97)).all(), (name, held)
    right = np.array([each.accuracy for each in found])
    assert 0.93 < (np.abs(right[:, 0] - np.trace(joint) / joint.sum()) <= Z * right[:, 1]).mean() < 0.97
    counted = np.abs(MAPPED - joint.sum(0)) / joint.sum(0)
    assert counted.max() > 0.2  # what counting the pixels of the map would be wrong by


def test_areas_add_up_and_have_the_unit_of_the_map():
    found = estimate_areas(NAMES, SAMPLE, PIXELS)
    assert sum(one.area.value for one in found.classes) == pytest.approx(sum(PIXELS))
    hectares = estimate_areas(NAMES, SAMPLE, [HECTARES * one for one in PIXELS])
    for one, other in zip(found.classes, hectares.classes, strict=True):
        assert (other.area.value, other.area.error) == pytest.approx(
            (one.area.value * 0.09, one.area.error * 0.09)
        )
    plain = found.to_dict()["classes"][0]
    assert plain["area"]["low"] == pytest.approx(plain["area"]["value"] - Z * plain["area"]["error"])


def test_a_class_that_the_map_never_shows_has_an_area_and_no_users_accuracy():
    found = estimate_areas("abc", [[40, 5, 5], [3, 60, 7], [0, 0, 0]], [100, 300, 0])
    assert found.classes[2].area.value == pytest.approx(100 * 5 / 50 + 300 * 7 / 70)
    assert found.classes[2].producers.value == 0
    assert found.to_dict()["classes"][2]["users"]["value"] is None
    nowhere = estimate_areas("abc", [[40, 5, 0], [3, 60, 0], [0, 0, 0]], [100, 300, 0]).classes[2]
    assert nowhere.area.value == 0
    assert nowhere.to_dict()["producers"] == {"value": None, "error": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("sample", "mapped", "words"),
    [
        ([[9, 1], [0, 0]], [10, 20], "mapped as fen, so that .* Add reference places there"),
        ([[9, 1], [0, 1]], [10, 20], "fewer than two places that are mapped as fen"),
        ([[9, 1], [1, 9]], [10, 0], "mapped as fen, but the map shows none"),
        ([[9, -1], [1, 9]], [10, 5], "numbers from 0 on"),
        ([[9, 1], [1, 9]], [0, 0], "mapped as|some area is mapped"),
        ([[9, 1, 0], [1, 9, 0]], [10, 5], "2 x 2 counts"),
    ],
)
def test_what_cannot_be_estimated_is_refused(sample, mapped, words):
    with pytest.raises(DataError, match=words):
        estimate_areas(("bog", "fen"), sample, mapped)
