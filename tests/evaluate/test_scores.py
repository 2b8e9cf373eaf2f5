"""Scores against scikit-learn's, and what happens at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from vitrail.data.manifest import Row
from vitrail.evaluate.scores import Judged, Scores
from vitrail.evaluate.words import verdict
from vitrail.metrics.calibration import ece, noise
from vitrail.metrics.ranking import ranking
from vitrail.tasks.classify.task import Ranked

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def scores(truth, probabilities, labels=LABELS, groups=None, leaked=()):
    judged = []
    for i, (true, row) in enumerate(zip(truth, probabilities, strict=True)):
        order = np.argsort(-row, kind="stable")
        answer = Ranked(tuple(labels[j] for j in order), tuple(float(row[j]) for j in order))
        group = groups[i] if groups else ""
        judged.append(Judged(Row(f"{i}.png", f"{i}.png", labels[true], "test", group), answer))
    return Scores(tuple(judged), tuple(labels), frozenset(leaked))


@pytest.fixture
def some():
    """Answers of a middling model to 211 pictures of five of the seven classes."""
    draw = np.random.default_rng(5)
    truth = draw.integers(0, 5, 211)
    logits = draw.normal(size=(211, 7)) + 1.5 * np.eye(7)[truth]
    p = np.exp(logits)
    return truth, p / p.sum(axis=1, keepdims=True)


def test_scores_equal_those_of_scikit_learn(some):
    truth, p = some
    found = scores(truth, p).to_dict()
    said = p.argmax(axis=1)
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(truth, said), abs=1e-4)
    top5 = metrics.top_k_accuracy_score(truth, p, k=5, labels=range(7))
    assert found["top5"]["value"] == pytest.approx(top5, abs=1e-4)
    recall = metrics.recall_score(truth, said, labels=range(5), average="macro", zero_division=0)
    assert found["balanced_accuracy"]["value"] == pytest.approx(recall, abs=1e-4)
    f1 = metrics.f1_score(truth, said, labels=range(5), average="macro", zero_division=0)
    assert found["f1"]["value"] == pytest.approx(f1, abs=1e-4)
    for i, label in enumerate(LABELS[:5]):
        row = found["per_class"][label]
        mine = {"value": metrics.recall_score(truth == i, said == i)}
        mine["precision"] = metrics.precision_score(truth == i, said == i)
        mine["f1"] = metrics.f1_score(truth == i, said == i)
        mine["auroc"] = metrics.roc_auc_score(truth == i, p[:, i])
        mine["average_precision"] = metrics.average_precision_score(truth == i, p[:, i])
        for name, expected in mine.items():
            value = row[name] if name == "value" else row[name]["value"]
            assert value == pytest.approx(expected, abs=1e-4), (label, name)
        assert row["auroc"]["low"] < row["auroc"]["value"] < row["auroc"]["high"]


def test_ranking_counts_ties_and_weights_as_scikit_learn_does():
    draw = np.random.default_rng(3)
    truth, rank = draw.random(97) < 0.3, draw.integers(0, 7, 97) / 7
    weights = draw.integers(0, 4, (11, 97)).astype(float)
    found = ranking(rank, truth, weights)
    for i, weight in enumerate(weights):
        area = metrics.roc_auc_score(truth, rank, sample_weight=weight)
        average = metrics.average_precision_score(truth, rank, sample_weight=weight)
        assert found.auroc[i] == pytest.approx(area)
        assert found.average_precision[i] == pytest.approx(average)


def test_a_class_missing_from_the_test_shifts_nothing(some):
    truth, p = some
    found = scores(truth, p)
    matrix = found.matrix()
    assert matrix.shape == (7, 7)
    assert matrix[5:].sum() == 0
    assert matrix.sum() == 211
    for i in range(5):
        assert matrix[i, i] == ((truth == i) & (p.argmax(axis=1) == i)).sum()
    row = found.to_dict()["per_class"]["gnu"]
    assert row["pictures"] == 0
    assert row["auroc"]["value"] is None
    kept = found.classwise.means["auroc"].value
    fewer = [metrics.roc_auc_score(truth == i, p[:, i]) for i in range(5)]
    assert kept == pytest.approx(np.mean(fewer))


def test_below_ten_pictures_a_dash_and_the_reason():
    truth = np.array([0] * 9 + [1] * 40)
    p = np.random.default_rng(0).dirichlet([1, 1], 49)
    row = scores(truth, p, ("a", "b")).to_dict()["per_class"]["a"]
    assert row["f1"]["low"] is None
    assert row["f1"]["why"] == "fewer than 10 pictures"
    assert row["low"] < row["value"] < row["high"]  # a share has Wilson's interval, however few


def test_the_score_is_told_with_and_without_twins(some):
    truth, p = some
    right = np.flatnonzero(p.argmax(axis=1) == truth)[:50]
    found = scores(truth, p, leaked=[f"{i}.png" for i in right])
    told = found.to_dict()
    expected = ((p.argmax(axis=1) == truth).sum() - 50) / 161
    assert told["without_twins"]["value"] == pytest.approx(expected, abs=1e-4)
    assert told["twins"] == 50
    assert "without those that have a twin in training" in verdict(found)
    assert "without_twins" not in scores(truth, p).to_dict()


def test_the_verdict_names_the_weakest_class_and_what_it_is_taken_for():
    truth = [0] * 10 + [1] * 10
    p = np.array([[0.9, 0.1]] * 10 + [[0.8, 0.2]] * 3 + [[0.3, 0.7]] * 7)
    found = scores(truth, p, ("dog", "cat"))
    said = verdict(found, found.calibration(1.0))
    assert said.startswith("85.0 % right, ")
    assert "on 20 pictures it never saw; weakest: cat, 70.0 %, mostly taken for dog" in said
    assert "honest to" in said


def test_a_perfectly_calibrated_model_shows_noise_alone():
    draw = np.random.default_rng(0)
    found = []
    for seed in range(20):
        sure = draw.uniform(0.3, 1.0, 1500)
        found.append(ece(sure, draw.random(1500) < sure) / noise(sure, seed))
    assert np.mean(found) == pytest.approx(1, abs=0.15)
    assert ece(np.full(1000, 0.9), np.arange(1000) < 600) == pytest.approx(0.3)


def test_the_error_before_is_that_of_temperature_one(some):
    truth, p = some
    sharp = p**2
    sharp /= sharp.sum(axis=1, keepdims=True)  # as answered with temperature one half
    found = scores(truth, sharp).calibration(0.5)
    plain = scores(truth, p).calibration(1.0)
    assert found.ece_before == pytest.approx(plain.ece_after, abs=1e-9)
    assert sum(b.answers for b in found.bins) == 211
