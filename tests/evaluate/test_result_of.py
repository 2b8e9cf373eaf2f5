"""A score that states no interval gets one where its task can score resamples."""

from __future__ import annotations

import numpy as np
import own_tasks
import pytest
import torch

from vitrail.data.manifest import Row
from vitrail.evaluate.collect_answers import result_of
from vitrail.tasks.result import Scope


def evaluated(count):
    rows = [Row(f"{i:03}", f"{i:03}.png", "") for i in range(count)]
    evaluation = own_tasks.ValueEvaluation()
    draw = np.random.default_rng(0)
    evaluation.update(
        rows, {"value": torch.from_numpy(draw.normal(size=count))}, [0.0] * count, [None] * count
    )
    return evaluation, rows


def test_a_score_gets_the_interval_that_resamples_tell():
    evaluation, rows = evaluated(200)
    found = result_of(evaluation, rows, Scope())
    closeness, error = found.numbers["closeness"], found.numbers["error"]
    assert closeness.value == pytest.approx(evaluation.scores()["closeness"])
    off = evaluation.per_image()["error"]
    spread = 1.96 * off.std() / len(off) ** 0.5  # of the mean error, by the normal law
    expected = [1 / (1 + off.mean() + one) for one in (spread, -spread)]
    assert [closeness.low, closeness.high] == pytest.approx(expected, abs=0.01)
    assert (error.low, error.high) == (None, None)  # resamples say nothing of it


def test_few_pictures_tell_none_and_it_is_said_why():
    found = result_of(*evaluated(4), Scope())
    assert found.numbers["closeness"].low is None
    assert "fewer than 10 images" in found.numbers["closeness"].why
