"""Scores of labels against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.metrics.label_quality import (
    NONE,
    alternatives,
    best_others,
    margins,
    self_confidence,
    thresholds,
)

P = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.05, 0.9, 0.05]])
LABELS = np.array([0, 1, 1, 2, 0])


def test_self_confidence_and_margin_by_hand():
    assert self_confidence(P, LABELS) == pytest.approx([0.9, 0.7, 0.3, 0.8, 0.05])
    assert best_others(P, LABELS).tolist() == [1, 0, 0, 0, 1]
    assert margins(P, LABELS) == pytest.approx([0.8, 0.5, -0.3, 0.7, -0.85])


def test_an_alternative_is_as_probable_as_usual_for_its_own_images():
    assert thresholds(P, LABELS) == pytest.approx([0.475, 0.5, 0.8])
    assert alternatives(P, LABELS).tolist() == [NONE, NONE, 0, NONE, 1]


def test_a_class_without_images_is_no_alternative():
    labels = np.zeros(5, dtype=int)
    assert thresholds(P, labels)[1:].tolist() == [np.inf, np.inf]
    assert set(alternatives(P, labels).tolist()) == {NONE}


def test_images_of_a_rare_class_that_heads_know_badly_are_not_all_doubted():
    p = np.array([[0.95, 0.05]] * 20 + [[0.7, 0.3]] * 3 + [[0.99, 0.01]])
    labels = np.array([0] * 20 + [1] * 4)
    assert alternatives(p, labels)[20:].tolist() == [NONE, NONE, NONE, 0]
