"""Intervals and paired tests against numbers computed elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.evaluate.intervals import wilson
from vitrail.evaluate.paired import Paired


def test_wilson_equals_scipy():
    from scipy.stats import binomtest

    for right, count in [(0, 5), (5, 5), (81, 263), (1, 1000), (499, 500)]:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        found = wilson(right, count)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert found.low <= found.value <= found.high


def test_of_no_pictures_nothing_is_known():
    assert wilson(0, 0) == (0.0, 0.0, 1.0)


def test_coverage_is_what_it_promises():
    draw = np.random.default_rng(0)
    covered = []
    for p in (0.5, 0.7, 0.9, 0.97, 0.99):
        for n in (100, 500, 2000):
            rights = draw.binomial(n, p, 4000)
            held = np.mean([w.low <= p <= w.high for w in (wilson(int(r), n) for r in rights)])
            assert held > 0.91
            covered.append(held)
    assert 0.94 <= np.mean(covered) <= 0.96


def test_a_small_difference_has_no_winner():
    assert "No clear winner" in Paired(4, 6, 0.75).verdict("A", "B")
    assert Paired(2, 30, 1e-5).verdict("A", "B").startswith("B is better than A")
