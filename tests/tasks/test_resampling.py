"""Scores of images that lie in blocks: kappa, intervals over blocks, and what the report says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.tasks.classify.evaluation import ClassEvaluation
from vitrail.tasks.multilabel.evaluation import LabelEvaluation
from vitrail.tasks.segment.evaluation import SegmentEvaluation

LABELS = ("bog", "fen", "water")


def rows_of(count, group):
    return [Row(f"{i}", f"{i}", "", "", "test", group(i)) for i in range(count)]


def answers(group, count=360, seed=3):
    """An evaluation of three classes, where each block of 30 images has its own share of mistakes."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, count)
    noise = np.repeat(draw.uniform(0.3, 2.5, -(-count // 30)), 30)[:count]
    logits = torch.from_numpy(3 * np.eye(3)[truth] + noise[:, None] * draw.normal(size=(count, 3))).float()
    evaluation = ClassEvaluation(LABELS)
    evaluation.update(rows_of(count, group), {"logits": logits}, truth.tolist(), [])
    return evaluation


def width(score):
    return score["high"] - score["low"]


def test_blocks_widen_every_interval_and_change_no_score():
    alone, grouped = answers(lambda i: ""), answers(lambda i: f"block {i // 30},0")
    plain, whole = (one.result().details["test"] for one in (alone, grouped))
    for name in ("accuracy", "balanced_accuracy", "kappa", "f1"):
        assert whole[name]["value"] == plain[name]["value"]
        assert width(whole[name]) > 1.2 * width(plain[name]), name
    assert all(whole["per_class"][one]["value"] == plain["per_class"][one]["value"] for one in LABELS)
    assert width(whole["per_class"]["fen"]) > width(plain["per_class"]["fen"])
    assert whole["resampling"] == {"units": 12, "groups": 12, "called": "block", "few": []}
    assert "resampling" not in plain
    assert grouped.result().details == grouped.result().details


def test_kappa_is_in_the_report_with_its_interval_and_below_the_table():
    evaluation = answers(lambda i: "")
    result = evaluation.result()
    kappa = result.numbers["kappa"]
    assert kappa.value == pytest.approx(cohen_kappa_score(evaluation.truth, evaluation.answers()), abs=1e-6)
    assert kappa.low < kappa.value < kappa.high
    assert (kappa.unit, kappa.name, kappa.fact) == ("", "kappa", "")
    assert f"(Cohen's kappa): {kappa.text()}, {kappa.span()}." in result.sections[0].note
    assert "Intervals resample" not in result.sections[0].note


def test_the_report_says_what_is_resampled():
    note = answers(lambda i: f"block {i // 30},0").result().sections[0].note
    assert note.endswith("Intervals resample 12 blocks, because what lies in one block is not independent.")
    mixed = answers(lambda i: f"P {i // 30}" if i < 300 else "").result()
    assert "Intervals resample 10 groups and 60 single images, because" in mixed.sections[0].note


def test_fewer_than_five_blocks_are_called_unreliable():
    result = answers(lambda i: f"block {i // 30},0", count=90).result()
    assert "These are fewer than 5, so the intervals are unreliable." in result.sections[0].note
    assert "from 3 blocks only, so intervals are unreliable" in result.verdict
    assert result.details["test"]["kappa"]["why"] == "fewer than 5 groups to resample"
    assert width(result.details["test"]["accuracy"]) > 0.4


def test_a_class_that_few_blocks_show_is_named():
    evaluation = ClassEvaluation(LABELS)
    truth = [2 if i < 40 and i % 2 else i % 2 for i in range(240)]
    logits = torch.from_numpy(np.eye(3)[truth] + np.random.default_rng(0).normal(size=(240, 3))).float()
    evaluation.update(rows_of(240, lambda i: f"block {i // 20},0"), {"logits": logits}, truth, [])
    result = evaluation.result()
    assert "Fewer than 5 blocks show water, so those intervals are unreliable." in result.sections[0].note
    assert result.details["test"]["per_class"]["water"]["f1"]["why"] == "fewer than 5 groups to resample"
    assert result.details["test"]["per_class"]["bog"]["f1"]["low"] is not None


def test_several_labels_are_resampled_by_patients():
    draw = np.random.default_rng(1)
    truth = draw.random((120, 3)) < 0.5
    evaluation = LabelEvaluation(LABELS, 1.0, (0.5, 0.5, 0.5))
    logits = torch.from_numpy(2.0 * truth - 1 + draw.normal(size=truth.shape)).float()
    places = [np.flatnonzero(one).tolist() for one in truth]
    evaluation.update(rows_of(120, lambda i: f"patient {i // 10}"), {"logits": logits}, places, [])
    assert "Intervals resample 12 patients" in evaluation.result().sections[0].note


def test_segmentation_has_kappa_and_the_mean_over_classes():
    draw = np.random.default_rng(2)
    evaluation = SegmentEvaluation(LABELS)
    truth = [draw.integers(0, 3, (8, 8)).astype(np.uint8) for _ in range(24)]
    logits = torch.from_numpy(
        draw.normal(size=(24, 3, 8, 8)) + np.eye(3)[np.stack(truth)].transpose(0, 3, 1, 2)
    )
    at = [Geometry((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))] * 24
    evaluation.update(rows_of(24, lambda i: f"block {i // 3},0"), {"map": logits.float()}, truth, at)
    result = evaluation.result()
    said = logits.float().argmax(1).numpy()
    expected = cohen_kappa_score(np.stack(truth).ravel(), said.ravel())
    assert result.numbers["kappa"].value == pytest.approx(expected, abs=1e-6)
    assert result.numbers["kappa"].unit == ""
    recalls = [(said[np.stack(truth) == i] == i).mean() for i in range(3)]
    assert result.numbers["balanced_accuracy"].value == pytest.approx(np.mean(recalls), abs=1e-6)
    assert "Intervals resample 8 blocks" in result.sections[0].note
