"""What conformal limits promise, by simulation and by formulas that were derived elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vitrail.metrics.conformal import least_images, limit, promise, share_below


def test_nineteen_images_promise_an_error_of_one_in_twenty():
    assert [least_images(error) for error in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]
    assert promise(18, 0.05) is None
    assert promise(19, 0.05).promised == pytest.approx(0.95)


@pytest.mark.parametrize(("count", "error"), [(18, 0.05), (0, 0.05), (8, 0.1)])
def test_too_few_scores_have_no_limit(count, error):
    """A quantile that is bent to the largest score breaks the promise for few images."""
    assert limit(np.arange(count, dtype=float).tolist(), error) == math.inf


@pytest.mark.parametrize(("count", "error"), [(19, 0.05), (20, 0.05), (99, 0.05), (200, 0.1), (57, 0.3)])
def test_the_limit_is_the_quantile_of_the_papers(count, error):
    scores = np.sort(np.random.default_rng(count).normal(size=count))
    level = math.ceil((count + 1) * (1 - error) - 1e-9) / count
    assert limit(scores.tolist(), error) == np.quantile(scores, level, method="inverted_cdf")


@pytest.mark.parametrize("count", [19, 40, 200, 999])
def test_sets_hold_what_was_promised_and_vary_as_was_said(count):
    """The share of all future images that is kept by each of 4,000 limits, for scores whose distribution is known."""
    draw = np.random.default_rng(0)
    kept = np.array([limit(np.sort(draw.random(count)).tolist(), 0.05) for _ in range(4000)])
    found = promise(count, 0.05)
    assert kept.mean() >= 0.95 - 0.001
    assert kept.mean() <= 0.95 + 1 / (count + 1) + 0.001
    assert np.mean((kept >= found.low) & (kept <= found.high)) == pytest.approx(0.95, abs=0.012)


def test_the_words_say_what_this_file_delivers():
    assert str(promise(1000, 0.05)) == "promised 95 %, this file delivers 93.6 to 96.3 (1,000 images)"


@pytest.mark.parametrize("count", [19, 33, 250])
def test_the_share_and_the_limit_say_the_same(count):
    scores = np.sort(np.random.default_rng(1).normal(size=count)).tolist()
    for value in (*scores, *np.linspace(-4, 4, 41)):
        assert (value > limit(scores, 0.05)) == (share_below(scores, value) >= 0.95 - 1e-12)
