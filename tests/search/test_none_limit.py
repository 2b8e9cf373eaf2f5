"""None of these, from unlabelled images: what is claimed is measured on generated similarities."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.search.none_limit import LEAST, fit_limit


def generated(words, images, none, seed, lift=5.0):
    """Cosines (images, words), those with neutral texts, and the word that each image shows, -1 for none."""
    draw = np.random.default_rng(seed)
    truth = np.where(draw.random(images) < none, -1, draw.integers(0, words, images))
    scores = draw.normal(size=words) + draw.normal(size=(images, words)) + 0.7 * draw.normal(size=(images, 1))
    shown = truth >= 0
    scores[shown, truth[shown]] += lift + 0.7 * draw.normal(size=shown.sum())
    neutral = draw.normal(size=12) + draw.normal(size=(images, 12))
    return 0.2 + 0.02 * scores, 0.2 + 0.02 * neutral, truth


@pytest.mark.parametrize(
    ("words", "none"), [(2, 0.5), (3, 0.1), (3, 0.5), (5, 0.5), (5, 0.9), (10, 0.5), (10, 1.0)]
)
def test_the_error_is_about_what_is_claimed(words, none):
    passed, missed, told = [], [], []
    for seed in range(30):
        scores, neutral, truth = generated(words, 200, none, seed)
        found = fit_limit(scores, neutral)
        assert found is not None
        passed += (~found.none)[(truth < 0) & found.told].tolist()
        missed += found.none[truth >= 0].tolist()
        told.append(found.told.mean())
    assert np.mean(passed) < 0.1
    assert not missed or np.mean(missed) < 0.2
    assert np.mean(told) > 0.5


def test_one_word_alone_is_compared_with_texts_that_say_nothing():
    passed, missed = [], []
    for seed in range(30):
        scores, neutral, truth = generated(1, 200, 0.5, seed)
        found = fit_limit(scores, neutral)
        assert found is not None
        passed += (~found.none)[(truth < 0) & found.told].tolist()
        missed += found.none[truth >= 0].tolist()
    assert np.mean(passed) < 0.1
    assert np.mean(missed) < 0.1


def test_nothing_is_said_of_few_pictures():
    scores, neutral, _ = generated(3, LEAST - 1, 0.3, 0)
    assert fit_limit(scores, neutral) is None
    scores, neutral, _ = generated(3, LEAST, 0.3, 0)
    assert fit_limit(scores, neutral) is not None


def test_nothing_is_said_of_a_word_that_nearly_all_pictures_show():
    draw = np.random.default_rng(0)
    scores = 0.2 + 0.02 * draw.normal(size=(100, 2))
    scores[:97, 0] += 0.1
    found = fit_limit(scores, 0.2 + 0.02 * draw.normal(size=(100, 12)))
    assert found is not None
    assert not found.told[:97].any()
    assert not found.none[:97].any()


def test_the_error_is_measured_by_leaving_words_out():
    scores, neutral, truth = generated(5, 400, 0.3, 0)
    found = fit_limit(scores, neutral)
    assert found is not None
    assert found.measured is not None
    assert found.measured.tested > 0.5 * (truth >= 0).sum()
    assert found.measured.share < 0.15
    like = scores.copy()
    like[:, 1] = scores[:, 0] - 0.001  # a second word that means the same: left out, the other one still fits
    alike = fit_limit(like, neutral)
    assert alike is not None
    assert alike.measured is not None
    assert fit_limit(scores[:, :2], neutral).measured is None


def test_brighter_pictures_are_not_taken_for_a_word():
    """A level that all texts share, as some images have it, changes nothing."""
    scores, neutral, _ = generated(4, 200, 0.5, 1)
    level = 0.1 * np.random.default_rng(2).normal(size=(200, 1))
    one, other = fit_limit(scores, neutral), fit_limit(scores + level, neutral + level)
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.none, other.none)
