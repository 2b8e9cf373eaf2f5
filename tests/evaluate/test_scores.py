"""Scores against scikit-learn's, what happens at their edges, and that batches and processes change nothing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn import metrics

from vitrail.data.manifest import Row
from vitrail.metrics.calibration import ece, noise
from vitrail.metrics.ranking import ranking
from vitrail.tasks.classify.evaluation import ClassEvaluation, ClassScores
from vitrail.tasks.multilabel.evaluation import LabelEvaluation
from vitrail.tasks.result import NEVER_SEEN, Gathered, Number, Scope

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def rows_of(truth, labels=LABELS, groups=None):
    return [
        Row(f"{i}.png", f"{i}.png", "", labels[true], "test", groups[i] if groups else "")
        for i, true in enumerate(truth)
    ]


def evaluated(truth, probabilities, labels=LABELS, temperature=1.0, batch=10**6):
    """Answers with these probabilities, taken in so many at a time."""
    found = ClassEvaluation(labels, temperature)
    logits = torch.from_numpy(temperature * np.log(probabilities)).float()
    rows = rows_of(truth, labels)
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        found.update(rows[part], {"logits": logits[part]}, list(truth[part]), [])
    return found


def details(truth, probabilities, labels=LABELS, leaked=()):
    return evaluated(truth, probabilities, labels).result(Scope(leaked=frozenset(leaked))).details["test"]


@pytest.fixture
def some():
    """Answers of a middling model to 211 images of five of the seven classes."""
    draw = np.random.default_rng(5)
    truth = draw.integers(0, 5, 211)
    logits = draw.normal(size=(211, 7)) + 1.5 * np.eye(7)[truth]
    p = np.exp(logits)
    return truth, p / p.sum(axis=1, keepdims=True)


@pytest.fixture
def several():
    """Logits of three labels for 90 images, and which of them are there."""
    draw = np.random.default_rng(6)
    truth = draw.random((90, 3)) < (0.5, 0.3, 0.1)
    return torch.from_numpy(draw.normal(size=(90, 3)) + 2 * truth - 1).float(), truth


def of_labels(logits, truth, parts):
    found = LabelEvaluation("abc", 1.3, (0.4, 0.5, 0.6))
    rows = [Row(f"{i}.png", f"{i}.png", "", "", "test", f"g{i // 2}") for i in range(len(truth))]
    for part in parts:
        targets = [tuple(np.flatnonzero(truth[i]).tolist()) for i in part]
        found.update([rows[i] for i in part], {"logits": logits[part]}, targets, [])
    return found


def test_scores_equal_those_of_scikit_learn(some):
    truth, p = some
    found = details(truth, p)
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


def test_scores_while_training_equal_those_of_scikit_learn(some, several):
    truth, p = some
    found = evaluated(truth, p).scores()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, p.argmax(axis=1)))
    assert found["loss"] == pytest.approx(metrics.log_loss(truth, p, labels=range(7)), abs=1e-5)
    assert found["pictures"] == 211
    logits, flags = several
    found = of_labels(logits, flags, [range(90)]).scores()
    assert found["map"] == pytest.approx(metrics.average_precision_score(flags, logits.numpy()))
    losses = [metrics.log_loss(flags[:, i], logits[:, i].sigmoid().numpy()) for i in range(3)]
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert np.isnan(LabelEvaluation("abc", 1.0, (0.5,) * 3).scores()["loss"])
    assert ClassEvaluation(LABELS).scores()["pictures"] == 0


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_change_nothing(some, several, batch):
    truth, p = some
    whole, parts = evaluated(truth, p, temperature=1.7), evaluated(truth, p, temperature=1.7, batch=batch)
    assert parts.scores() == whole.scores()
    assert parts.calibrate() == whole.calibrate()
    assert parts.result() == whole.result()
    logits, flags = several
    cut = [range(i, min(90, i + batch)) for i in range(0, 90, batch)]
    one, many = of_labels(logits, flags, [range(90)]), of_labels(logits, flags, cut)
    assert many.scores() == one.scores()
    assert many.calibrate() == one.calibrate()
    assert many.result() == one.result()


def test_processes_change_nothing(some, several):
    """Two that saw every second batch are merged, in either order, after the way through a pickle."""
    truth, p = some
    whole = evaluated(truth, p)
    halves = []
    for odd in (0, 1):
        half = ClassEvaluation(LABELS)
        for start in range(16 * odd, 211, 32):
            part = slice(start, min(211, start + 16))
            logits = torch.from_numpy(np.log(p[part])).float()
            half.update(rows_of(truth)[part], {"logits": logits}, truth[part].tolist(), [])
        halves.append(half)
    for order in ((0, 1), (1, 0)):
        merged = ClassEvaluation(LABELS)
        for i in order:
            merged.merge(pickle.loads(pickle.dumps(halves[i])))
        assert merged.result() == whole.result()
        assert merged.scores() == whole.scores()
    logits, flags = several
    merged = of_labels(logits, flags, [range(1, 90, 2)])
    merged.merge(of_labels(logits, flags, [range(0, 90, 2)]))
    assert merged.result() == of_labels(logits, flags, [range(90)]).result()


def test_a_resample_scores_as_if_its_pictures_stood_there_so_often(some, several):
    truth, p = some
    counts = np.random.default_rng(0).integers(0, 3, 211)
    often = np.repeat(np.arange(211), counts)
    found, repeated = evaluated(truth, p).resample(counts), evaluated(truth[often], p[often]).scores()
    assert found == pytest.approx({name: repeated[name] for name in found})
    logits, flags = several
    counts = counts[:90]
    often = np.repeat(np.arange(90), counts)
    found = of_labels(logits, flags, [range(90)]).resample(counts)
    expected = of_labels(logits[often], flags[often], [range(len(often))])
    assert found["map"] == pytest.approx(expected.scores()["map"])
    assert found["accuracy"] == pytest.approx(expected.right().mean())
    images = evaluated(truth, p).per_image()
    assert images["right"].mean() == pytest.approx(evaluated(truth, p).scores()["accuracy"])
    assert images["probability"] == pytest.approx(p[np.arange(211), truth], abs=1e-6)


def test_what_is_gathered_keeps_the_order_of_the_ids():
    first, second = Gathered(), Gathered()
    first.add([Row("2.png", "", ""), Row("10.png", "", "")], {"x": np.array([2, 10])})
    second.add([Row("1.png", "", ""), Row("3.png", "", "")], {"x": np.array([1, 3])})
    first.merge(second)
    assert first["x"].tolist() == [1, 2, 3, 10]
    assert [row.id for row in first.rows] == ["1.png", "2.png", "3.png", "10.png"]
    assert len(Gathered()["x"]) == 0


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
    found = ClassScores(evaluated(truth, p), frozenset())
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
    row = details(truth, p, ("a", "b"))["per_class"]["a"]
    assert row["f1"]["low"] is None
    assert row["f1"]["why"] == "fewer than 10 images"
    assert row["low"] < row["value"] < row["high"]  # a share has Wilson's interval, however few


def test_the_score_is_told_with_and_without_twins(some):
    truth, p = some
    right = np.flatnonzero(p.argmax(axis=1) == truth)[:50]
    found = evaluated(truth, p).result(Scope(leaked=frozenset(f"{i}.png" for i in right)))
    told = found.details["test"]
    expected = ((p.argmax(axis=1) == truth).sum() - 50) / 161
    assert told["without_twins"]["value"] == pytest.approx(expected, abs=1e-4)
    assert told["twins"] == 50
    assert "without those that have a duplicate in training" in found.verdict
    assert found.numbers["without_twins"].fact == "without the 50 that have a duplicate in training"
    assert "without_twins" not in details(truth, p)


def test_the_verdict_names_the_weakest_class_and_what_it_is_taken_for():
    truth = np.array([0] * 10 + [1] * 10)
    p = np.array([[0.9, 0.1]] * 10 + [[0.8, 0.2]] * 3 + [[0.3, 0.7]] * 7)
    said = evaluated(truth, p, ("dog", "cat")).result().verdict
    assert said.startswith("85.0 % right, ")
    assert f"on 20 {NEVER_SEEN}; weakest: cat, 70.0 %, mostly taken for dog" in said
    assert "probabilities are off by" in said


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
    sharp = ClassEvaluation(LABELS, 0.5)  # the logits of p, answered with temperature one half
    sharp.update(rows_of(truth), {"logits": torch.from_numpy(np.log(p)).float()}, truth.tolist(), [])
    found, plain = sharp.calibration(), evaluated(truth, p).calibration()
    assert found.ece_before == pytest.approx(plain.ece_after, abs=1e-6)
    assert found.ece_after != pytest.approx(plain.ece_after, abs=1e-3)
    assert sum(b.answers for b in found.bins) == 211


def test_numbers_are_told_in_their_own_unit():
    assert (Number(0.913, 0.9, 0.95).text(), Number(0.913, 0.9, 0.95).span()) == ("91.3 %", "90.0 – 95.0")
    assert (Number(2.414, 2.1, 3.0, unit="px").text(), Number(2.414, 2.1, 3.0, "px").span()) == (
        "2.41 px",
        "2.1 – 3",
    )
    assert Number(0.1734, unit="").text() == "0.173"
    assert (Number(None).text(), Number(None).span()) == ("–", "–")
    assert Number(2.0, 1.0, 3.0, "px", "lower").to_dict() == {
        "value": 2.0, "low": 1.0, "high": 3.0, "unit": "px", "better": "lower"
    }  # fmt: skip
