"""The closed-form few-shot metric."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vitrail.core.errors import DataError
from vitrail.evaluate.few_shot import few_shot, ridge, signs, standard


def clouds(count: int, d: int, apart: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    centres = apart * np.random.default_rng(0).normal(size=(4, d))
    classes = np.arange(count) % 4
    return centres[classes] + draw.normal(size=(count, d)), classes


@pytest.mark.parametrize(("n", "d"), [(20, 7), (8, 31)])
def test_both_systems_are_the_ridge_of_scikit_learn(n, d):
    x, classes = clouds(n, d, 1.0)
    y = signs(classes)
    expected = Ridge(alpha=5.0, fit_intercept=False).fit(x, y).coef_.T
    np.testing.assert_allclose(ridge(x, y, 5.0), expected, atol=1e-9)


def test_features_are_scaled_by_those_that_were_learnt():
    x, _ = clouds(20, 3, 1.0)
    scaled = standard(x[:5], x)
    assert scaled.shape == (5, 4)
    np.testing.assert_allclose(scaled[:, :3], (x[:5] - x.mean(0)) / (x.std(0) + 1e-5))
    assert (scaled[:, 3] == 100).all()


def test_clear_classes_are_learnt_from_few_and_noise_is_not():
    (learnt, classes), (held, truth) = clouds(80, 16, 3.0), clouds(200, 16, 3.0, seed=9)
    clear = few_shot(learnt, classes, held, truth, shots=5)
    assert len(clear) == 3
    assert min(clear) > 0.95
    (noise, _), (other, _) = clouds(80, 16, 0.0), clouds(200, 16, 0.0, seed=9)
    assert max(few_shot(noise, classes, other, truth, shots=5)) < 0.45


def test_the_seed_decides_and_the_names_of_classes_do_not():
    (learnt, classes), (held, truth) = clouds(80, 4, 0.5), clouds(200, 4, 0.5, seed=9)
    first = few_shot(learnt, classes, held, truth, shots=2)
    assert first == few_shot(learnt, classes * 7, held, truth * 7, shots=2)
    assert len(set(first)) > 1


def test_too_few_pictures_are_refused():
    learnt, classes = clouds(8, 4, 1.0)
    with pytest.raises(DataError, match="fewer shots"):
        few_shot(learnt, classes, learnt, classes, shots=3)
