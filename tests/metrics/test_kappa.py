"""Cohen's kappa against scikit-learn's, and where it is not defined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from vitrail.metrics.kappa import kappa_of_table


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learns(seed):
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 5, 400)
    said = np.where(draw.random(400) < 0.2 * seed, draw.integers(0, 7, 400), truth)
    table = confusion_matrix(truth, said, labels=range(7))
    assert kappa_of_table(table) == pytest.approx(cohen_kappa_score(truth, said), abs=1e-12)


def test_kappa_of_many_tables_at_once():
    tables = np.random.default_rng(0).integers(0, 50, (3, 4, 4))
    assert kappa_of_table(tables) == pytest.approx([float(kappa_of_table(one)) for one in tables])


def test_what_has_no_prediction_agrees_with_nothing():
    whole = np.array([[30, 10], [5, 55]])
    missing = np.array([[30, 10, 20], [5, 55, 0]])
    assert kappa_of_table(np.pad(whole, ((0, 0), (0, 1)))) == pytest.approx(float(kappa_of_table(whole)))
    assert kappa_of_table(missing) < kappa_of_table(whole)


def test_kappa_is_not_defined_where_chance_explains_all():
    assert np.isnan(kappa_of_table([[12, 0], [0, 0]]))
    assert np.isnan(kappa_of_table(np.zeros((2, 2))))
    assert kappa_of_table([[0, 10], [10, 0]]) == -1
