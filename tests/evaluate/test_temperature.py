"""What a task learns from validation answers: a temperature, thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from vitrail.core.errors import UnknownNameError
from vitrail.data.batch import Batch
from vitrail.data.manifest import Row
from vitrail.metrics.score_threshold import best_threshold
from vitrail.metrics.temperature import fit_label_temperature, fit_temperature
from vitrail.runs.run_network import ASK
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.evaluation import multi_hot
from vitrail.tasks.multilabel.task import MultiLabel


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_under_which_answers_were_drawn_is_found(true):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(4000, 7)) * 3
    p = np.exp(logits / true)
    p /= p.sum(axis=1, keepdims=True)
    truth = np.array([draw.choice(7, p=row) for row in p])
    assert fit_temperature(logits, truth) == pytest.approx(true, rel=0.06)
    yes = draw.random(logits.shape) < 1 / (1 + np.exp(-logits / true))
    assert fit_label_temperature(logits, yes) == pytest.approx(true, rel=0.06)


def test_few_pictures_all_right_do_not_make_it_certain():
    logits = np.eye(5)[[0, 1, 2, 3, 4] * 2] * 4.0
    found = fit_temperature(logits, np.array([0, 1, 2, 3, 4] * 2))
    assert 0.3 < found < 1
    assert fit_temperature(np.zeros((0, 5)), np.zeros(0, dtype=np.int64)) == 1.0


def test_settling_changes_the_probabilities_and_not_the_answer():
    task = Classify(["a", "b", "c"])
    output = {"logits": torch.tensor([[4.0, 0, 0], [0, 4.0, 0], [0, 4.0, 0], [0, 0, 4.0]])}
    found = task.evaluation()
    found.update([Row(str(i), "") for i in range(4)], output, [0, 1, 2, 0], [])
    learnt = found.calibrate()
    settled = Classify(task.labels, {**task.settings.model_dump(), **learnt})
    assert settled.settings.temperature > 1.5
    before, after = task.decode(output, [], ASK), settled.decode(output, [], ASK)
    assert [one.label for one in before] == [one.label for one in after]
    assert after[0].probability < before[0].probability


def test_the_threshold_is_the_one_with_the_best_f1():
    draw = np.random.default_rng(2)
    truth = draw.random(83) < 0.25
    p = np.round(np.clip(draw.normal(0.3, 0.2, 83) + 0.25 * truth, 0, 1), 2)  # with ties
    found = f1_score(truth, p >= best_threshold(p, truth, int(truth.sum())))
    assert found == pytest.approx(max(f1_score(truth, p >= at) for at in np.unique(p)))
    assert best_threshold(p, np.arange(83) < 4, 4) == 0.5  # too rare to choose


def test_each_label_is_a_question_of_its_own():
    task = MultiLabel(["ant", "bee", "cat"], {"thresholds": (0.5, 0.9, 0.2)})
    assert task.read(Row("", "", "", "cat|ant"), Path()) == (2, 0)
    assert task.read(Row("", ""), Path()) == ()
    with pytest.raises(UnknownNameError, match="bee"):
        task.read(Row("", "", "", "ant|bees"), Path())
    output = {"logits": torch.tensor([[2.0, 2.0, -1.0], [-3.0, -3.0, -3.0]])}
    first, second = task.decode(output, [], ASK)
    assert set(first.chosen) == {"ant", "cat"}
    assert first.labels[0] in {"ant", "bee"}
    assert second.chosen == ()
    assert str(second) == "none of the labels"
    said = first.to_dict()
    assert [one["label"] for one in said["labels"]] == list(first.chosen) == said["label"].split("|")
    assert said["probability"] == said["labels"][0]["probability"] == pytest.approx(0.880797)
    output = {"logits": torch.tensor([[0.5, 2.0, -1.0]])}
    assert task.decode(output, [], ASK)[0].to_dict()["probability"] == pytest.approx(0.622459)


def test_its_loss_is_binary_cross_entropy_and_mixing_keeps_the_labels_mass():
    task = MultiLabel(["a", "b", "c"], {"mixup": 0.4, "cutmix": 1.0})
    targets = [(0,), (1, 2), (), (2,)]
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    output, expected = {"logits": logits}, F.binary_cross_entropy_with_logits(logits, multi_hot(targets, 3))
    assert task.loss(output, targets).total == pytest.approx(float(expected))
    batch = Batch({"images": torch.rand(4, 3, 16, 16)}, targets, tuple("wxyz"))
    for seed in range(6):
        mixed = task.prepare(batch, np.random.default_rng(seed), 0.0)
        assert mixed.images.shape == batch.images.shape
        assert float(mixed.targets.sum()) == pytest.approx(4.0, abs=1e-5)
        assert task.loss(output, mixed.targets).total.isfinite()
