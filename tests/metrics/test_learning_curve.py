"""Learning curves: planted functions come back, intervals keep their promise, and what is odd is told."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.metrics.learning_curve import Forecast, Points, fit_curve, redraw_variance, shapes

SIZES = np.array([250.0, 625.0, 1250.0, 2500.0])

PLANTED = {
    "power": lambda n: 0.04 + 2.4 * n**-0.5,
    "logarithm": lambda n: 0.5 - 0.05 * np.log(n),
    "arctan": lambda n: 0.35 - 0.25 * 2 / np.pi * np.arctan(n / 900),
    "root": lambda n: 0.3 - 0.22 * (n / 1500) / (1 + (n / 1500) ** 2) ** 0.5,
}


def points(error, draw, images=1000, spread=0.15):
    """Points of heads that miss each test image where its difficulty lies below the error: nested in the size."""
    hard = draw.random(images)
    redraws = [3, 3, 3, 1]
    wrong = tuple(
        np.stack([hard < error(n) + spread / n**0.5 * draw.normal() for _ in range(r)]).astype(float)
        for n, r in zip(SIZES, redraws, strict=True)
    )
    return Points(SIZES, wrong, np.arange(images))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_curve_of_each_function_is_within_the_interval(name):
    error = PLANTED[name]
    found = fit_curve(points(error, np.random.default_rng(1), images=5_000, spread=0.02), [5000, 10_000])
    for size in (5000, 10_000):
        band = found.error(size)
        assert band.low - 0.01 <= error(size) <= band.high + 0.01
        assert band.high - band.low < 0.12
    gain = found.gain(5000)
    assert gain.low <= error(2500) - error(5000) <= gain.high
    assert gain.low < gain.middle < gain.high


def test_intervals_hold_the_truth_as_often_as_they_promise():
    """Every second redraw is of another function; what comes true has the noise of one training."""
    draw, held = np.random.default_rng(0), []
    errors = list(PLANTED.values())
    for number in range(120):
        error = errors[number % len(errors)]
        found = fit_curve(points(error, draw, images=500), [5000], seed=number)
        band = found.error(5000)
        held.append(band.low <= error(5000) + 0.15 / 5000**0.5 * draw.normal() <= band.high)
    assert 0.7 <= np.mean(held) <= 0.9


def test_far_is_less_sure_than_near():
    found = fit_curve(points(PLANTED["power"], np.random.default_rng(2)), [5000, 10_000])
    wide = [found.gain(size).high - found.gain(size).low for size in (5000, 10_000)]
    assert wide[1] > wide[0]


def test_a_curve_that_rises_is_told_and_not_bent():
    def worse(n):
        return 0.1 + 0.1 * (n > 1000)

    found = fit_curve(points(worse, np.random.default_rng(0), spread=0.02), [5000])
    assert found.rises == ((625, 1250),)
    assert found.gain(5000).low < 0, "a loss is as possible as a gain"
    well = fit_curve(points(PLANTED["power"], np.random.default_rng(0), spread=0.02), [5000])
    assert well.rises == ()


def test_a_flat_curve_gains_nothing_surely():
    found = fit_curve(points(lambda n: 0.2 + 0 * n, np.random.default_rng(3)), [5000])
    gain = found.gain(5000)
    assert gain.low <= 0.002
    assert gain.high < 0.03


def test_fewer_than_three_sizes_or_groups_are_not_fitted():
    every = points(PLANTED["power"], np.random.default_rng(0))
    few = every.part(np.array([False, False, True, True]), np.ones(1000, bool))
    assert fit_curve(few, [5000]) is None
    twins = Points(SIZES, every.wrong, np.zeros(1000, dtype=int))
    assert fit_curve(twins, [5000]) is None


def test_twins_among_the_test_images_count_once():
    draw = np.random.default_rng(0)
    one = points(PLANTED["power"], draw, images=300)
    four = Points(SIZES, tuple(np.repeat(wrong, 4, axis=1) for wrong in one.wrong), np.repeat(one.groups, 4))
    alone = Points(SIZES, four.wrong, np.arange(1200))
    widths = [fit_curve(each, [5000]).error(5000) for each in (one, four, alone)]
    wide = [band.high - band.low for band in widths]
    assert wide[1] == pytest.approx(wide[0], rel=0.15)
    assert wide[2] < 0.85 * wide[0]


def test_how_many_images_are_needed_is_told_only_where_it_is_known():
    sizes = np.geomspace(250, 10_000, 60)
    draw = np.random.default_rng(0).normal(size=(200, 1))

    def forecast(spread):
        draws = PLANTED["power"](sizes) + spread * draw
        return Forecast(sizes, draws, PLANTED["power"](2500) + spread * draw[:, 0], 2500.0, (), {})

    goal = PLANTED["power"](4000)
    near = forecast(0.002).need(goal)
    assert near.low <= 4000 <= near.high < 2 * near.low
    assert forecast(0.02).need(goal) is None, "too wide"
    assert forecast(0.002).need(0.0) is None, "never reached"
    assert forecast(0.002).need(PLANTED["power"](1000)) is None, "reached already"


def test_redraws_of_finite_images_differ_more_than_they_show():
    """Half of all images, drawn again, shares half of them: the variance of new images is twice as large."""
    wrong = (
        np.zeros((3, 4)),
        np.zeros((3, 4)),
        np.array([[0.0] * 4, [0.5] * 4, [1.0] * 4]),
        np.zeros((1, 4)),
    )
    found = redraw_variance(Points(SIZES, wrong, np.arange(4)))
    assert found[2] == pytest.approx(0.25 / 0.5 / 3)
    assert found[3] == pytest.approx(found[2] / 2)


def test_every_shape_falls():
    for shape in shapes(np.geomspace(0.05, 4, 30)).values():
        assert (np.diff(shape, axis=1) < 0).all()
