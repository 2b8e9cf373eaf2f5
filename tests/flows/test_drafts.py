"""Drafts by command: scored by folds, calibrated out of fold, asked again by eval, with several labels too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vitrail.data.manifest import Row
from vitrail.evaluate.cross_validation import Answered, gain_from_twice, score_by_folds
from vitrail.metrics.calibration import ece
from vitrail.models.factory import build, config_of
from vitrail.runs.network import build_task
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.multilabel.probe import LabelProbe
from vitrail.training.linear_probe import fit, fit_head, out_of_fold
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    config = config_of("vit_digits")
    path = tmp_path / "tiny.safetensors"
    _write_own(Pretrained("tiny", config, build(config).state_dict(), {}, "vitrail"), path)
    return path


def test_eval_of_a_draft_tells_its_score_by_folds(vitrail, digits, weights, tmp_path):
    run = tmp_path / "run"
    done = vitrail("train", digits, "--weights", weights, "--imgsz", "32", "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["calibration"]) >= {"ece_before", "ece_after", "ece_noise", "temperature"}
    assert "probabilities are off by" in report["verdict"]
    again = vitrail("eval", run, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["test"] == report["test"]
    assert "cross-validated" in found["notes"][0]
    told = vitrail("eval", run)
    assert "calibration error" in told.stdout
    assert "cross-validated" in told.stderr
    page = (run / "report.html").read_text()
    assert 'id="cell-0-0"' in page
    assert "What could be better" in page
    assert str(tmp_path) not in page
    assert "| class | all |" in (run / "README.md").read_text()
    out = tmp_path / "draft.onnx"
    left = vitrail("export", run, "--out", out, "--json")  # proven on the draft's own images
    assert left.returncode == 0, left.stderr
    assert json.loads(left.stdout)["agreement"]["pictures"] >= 200


def test_a_draft_of_several_labels_from_the_table_to_the_page(vitrail, pairs, weights, tmp_path):
    run = tmp_path / "run"
    words = ["--weights", weights, "--imgsz", "32", "--out", run, "--json"]
    done = vitrail("train", pairs, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["draft"]
    assert report["task"] == "multilabel"
    assert "mean average precision" in report["verdict"]
    chance = np.mean([row["pictures"] for row in report["test"]["per_class"].values()]) / 120
    assert report["test"]["map"]["value"] > chance + 0.1, (
        "features of a random network tell a little at least"
    )
    assert 0 <= report["gain_from_twice"] < 1
    assert report["calibration"]["answers"] == 480
    answer = json.loads(vitrail("predict", run, tmp_path / "pictures/0.png", "--json").stdout)[0]
    assert {one["label"] for one in answer["labels"]} <= set("0123")
    assert "average precision" in (run / "report.html").read_text()
    assert json.loads(vitrail("eval", run, "--json").stdout)["test"] == report["test"]
    full = ["--tune", "head", "epochs=1", "batch=16", "micro=16", "precision=float32"]
    after = vitrail(
        "train", pairs, *full, "--weights", weights, "--imgsz", "32", "--out", tmp_path / "head", "--json"
    )
    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout)["task"] == "multilabel"


def several(count=300, labels=3, width=9, seed=0):
    draw = np.random.default_rng(seed)
    truth = (draw.random((count, labels)) < (0.5, 0.3, 0.1)).astype(np.int64)
    vectors = draw.normal(size=(count, width)) + 2 * truth @ np.eye(labels, width)
    return vectors.astype(np.float32), truth


def test_heads_of_labels_are_logistic_regressions_of_each():
    from sklearn.linear_model import LogisticRegression

    vectors, truth = several()
    head = fit(LabelProbe("abc"), vectors, truth, 0.3)
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    for i in range(3):
        expected = LogisticRegression(C=0.3, max_iter=200, tol=1e-3).fit(scaled, truth[:, i])
        assert np.allclose(head.logits(vectors)[:, i], expected.decision_function(scaled), atol=1e-3)
    truth[:, 2] = 0
    assert (fit_head(LabelProbe("abc"), vectors, truth, np.arange(300)).logits(vectors)[:, 2] < -5).all()


def rows(truth, names):
    return [
        Row(str(i), "", "", "|".join(n for n, t in zip(names, line, strict=True) if t))
        for i, line in enumerate(truth)
    ]


def test_swapped_labels_among_several_are_doubted():
    vectors, truth = several(600)
    vectors[:, :3] += 6 * truth
    given = truth.copy()
    given[:4, 0] = 1 - given[:4, 0]
    task = build_task("multilabel", ["a", "b", "c"], {})
    found = out_of_fold(task.probe, vectors, given, np.arange(600))
    targets = [tuple(np.flatnonzero(line)) for line in given]
    answered = Answered(rows(given, "abc"), targets, found.logits, found.folds)
    folded = score_by_folds(task, "multilabel", answered)
    doubtful = task.probe.doubts(folded.evaluation)
    assert len({one.row.id for one in doubtful} & {"0", "1", "2", "3"}) >= 3
    assert len(doubtful) < 20
    assert {one.looks_like for one in doubtful if one.row.id in "0123"} <= {"no a", "also a"}


def test_a_temperature_is_never_judged_by_answers_that_chose_it():
    """Logits three times too sure: each fold is cooled by the others, and the stored number by all."""
    draw = np.random.default_rng(0)
    honest = draw.normal(size=(3000, 4)) * 2
    chances = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
    truth = (draw.random((3000, 1)) > chances.cumsum(1)).sum(1)
    folds = np.arange(3000) % 5
    labels = [Row(str(i), "", "", "abcd"[t]) for i, t in enumerate(truth)]
    task = build_task("classify", list("abcd"), {})
    folded = score_by_folds(
        task, "classify", Answered(labels, truth.tolist(), (3 * honest).astype(np.float32), folds)
    )
    found = folded.result.details["calibration"]
    assert found["temperature"] == pytest.approx(3.0, abs=0.3)
    assert found["ece_before"] > 0.1
    assert found["ece_after"] < 1.5 * found["ece_noise"]
    own, right = folded.evaluation.confidence(), folded.evaluation.right()
    assert ece(own, right) == pytest.approx(found["ece_after"], abs=2e-6)
    # A fold whose labels are all wrong does not choose its own temperature.
    spoilt = np.where(folds == 0, (truth + 1) % 4, truth)
    answered = Answered(labels, spoilt.tolist(), (3 * honest).astype(np.float32), folds)
    other = score_by_folds(task, "classify", answered)
    first = np.flatnonzero(folds == 0)
    assert np.array_equal(other.evaluation.probabilities()[first], folded.evaluation.probabilities()[first])


def test_rare_classes_leave_the_number_of_folds_alone():
    draw = np.random.default_rng(0)
    truth = np.array([0] * 50 + [1] * 50 + [2] * 2)
    vectors = (draw.normal(size=(102, 5)) + 3 * np.eye(3, 5)[truth]).astype(np.float32)
    found = out_of_fold(ClassProbe("abc"), vectors, truth, np.arange(102))
    assert set(found.folds.tolist()) == set(range(5))


def test_twice_the_pictures_by_a_power_law():
    assert gain_from_twice(0.9, 0.8) == pytest.approx(0.05)
    assert gain_from_twice(0.9, 0.9) == 0.0
    assert gain_from_twice(1.0, 0.8) == 0.0
