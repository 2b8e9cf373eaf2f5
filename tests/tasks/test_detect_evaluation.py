"""The evaluation that the task of detection makes: what is fitted on it, and a report of a model that finds nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from vitrail.data.batch import Geometry
from vitrail.data.boxes import Boxes, make_boxes
from vitrail.data.manifest import Row
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.detect.task import Detect

NAMES = ("cell", "nucleus", "never")
SIZE = (100, 200)
AT = Geometry(SIZE, (50, 100), (0.0, 0.0, 100.0, 200.0))


def case(number: int) -> tuple[Row, dict[str, torch.Tensor], Boxes]:
    """Return an image with a few objects, most of them found, one box invented and one of another class."""
    draw = np.random.default_rng(number)
    many = int(draw.integers(1, 5))
    corner, side = draw.uniform(5, 60, (many, 2)), draw.uniform(8, 30, (many, 2))
    kinds = draw.integers(0, 2, many)
    truth = make_boxes(np.concatenate([corner, corner + side], 1), kinds)
    centres = (truth.xyxy[:, :2] + truth.xyxy[:, 2:]) / 2 + draw.normal(0, 1.5, (many, 2))
    boxes = np.concatenate([centres, side], 1) / [200, 100, 200, 100]
    boxes = np.concatenate([boxes, [[0.9, 0.8, 0.1, 0.1]], [[0.8, 0.1, 0.1, 0.1]]])
    called = np.where(draw.random(many) < 0.8, kinds, 1 - kinds)
    logits = np.full((many + 2, 3), -6.0)
    logits[np.arange(many), called] = draw.uniform(-1, 3, many)
    logits[many, 0] = draw.uniform(-3, 1)
    output = {"boxes": torch.tensor(boxes[None]).float(), "logits": torch.tensor(logits[None]).float()}
    return Row(f"{number:03d}", f"{number}.png", group=f"g{number // 2}"), output, truth


def gathered(numbers, task=None) -> BoxEvaluation:
    evaluation = (task or Detect(NAMES, {"threshold": 0.4})).evaluation()
    for number in numbers:
        row, output, truth = case(number)
        evaluation.update([row], output, [truth], [AT])
    return evaluation


def test_calibration_fits_the_threshold_in_the_scores_that_predictions_then_have():
    """The temperature changes every confidence; the threshold must choose the same boxes afterwards."""
    before = gathered(range(24), Detect(NAMES, {}))
    fitted = before.calibrate()
    after = gathered(range(24), Detect(NAMES, fitted))
    assert after.scores() == before.scores()
    best = before.result().numbers["f1"].value
    assert after.result().numbers["f1"].value >= best
    again = after.calibrate()
    assert again["temperature"] == pytest.approx(fitted["temperature"], rel=0.02)
    assert again["threshold"] == pytest.approx(fitted["threshold"], abs=0.02)


def nothing(output, at, found):
    return [found for _ in at]


def test_a_model_that_finds_nothing_has_a_report():
    from vitrail.data.boxes import make_found

    evaluation = BoxEvaluation(NAMES, find=partial(nothing, found=make_found()))
    for number in range(12):
        row, output, truth = case(number)
        evaluation.update([row], output, [truth], [AT])
    result = evaluation.result()
    assert result.numbers["map"].value == 0
    assert "reliability" not in {section.kind for section in result.sections}
    assert evaluation.calibrate()["temperature"] == 1
    assert evaluation.per_image()["invented"].sum() == 0
