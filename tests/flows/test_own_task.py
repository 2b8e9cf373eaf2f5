"""A task defined outside the package trains, predicts and explains without a change anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageDraw
from torch import nn

from vitrail.data.prepare import prepare
from vitrail.explainers.explanation import explain
from vitrail.infer.predictor import Predictor
from vitrail.layers.head import Head
from vitrail.runs.recipe import compose
from vitrail.tasks.base import Losses, Task, within
from vitrail.training.fit import start


@dataclass(frozen=True)
class Number:
    """A predicted number."""

    value: float
    label: str

    def to_dict(self):
        return {"value": self.value, "label": self.label}

    def __str__(self):
        return f"{self.value:.2f}"


class Errors:
    """Closeness: 1 / (1 + mean absolute error)."""

    main = "closeness"

    def __init__(self):
        self.off = []

    def update(self, output, targets):
        self.off += (output["value"] - torch.tensor(targets)).abs().tolist()

    def state(self):
        return self.off

    def absorb(self, state):
        self.off += state

    def compute(self):
        return {"closeness": 1 / (1 + float(np.mean(self.off)))}


class Mean(Head):
    """One number of the mean token."""

    def __init__(self, spec):
        super().__init__()
        self.linear = nn.Linear(spec.width, 1)

    def forward(self, features, inputs):
        return {"value": self.linear(features.tokens.x.mean(1))[:, 0]}


class ReadValue(Task):
    """Regression: the label is a number."""

    name = "tests.flows.test_own_task:ReadValue"

    outputs = {"value": ()}  # noqa: RUF012

    def head(self, spec):
        return Mean(spec)

    def read(self, row, root):
        return float(row.target)

    def loss(self, output, targets):
        return Losses({"squared": F.mse_loss(output["value"], torch.tensor(targets))})

    def metrics(self):
        return Errors()

    def fingerprint(self, output):
        return within(output["value"].sigmoid()[:, None])

    def agree(self, one, other, tolerance=0.0):
        return (self.fingerprint(one) - self.fingerprint(other)).abs().amax(1) <= tolerance

    def decode(self, output, at, ask):
        return [
            Number(value, min(self.labels, key=lambda label: abs(float(label) - value)))
            for value in output["value"].tolist()
        ]

    def score(self, output, prediction):
        return output["value"]

    def render(self, image, prediction):
        ImageDraw.Draw(image).text((0, 0), str(prediction))
        return image


def test_a_task_from_outside_trains_predicts_and_explains(digits, tmp_path):
    prepared = prepare(digits)
    recipe = compose(
        "digits_vit",
        {
            "data": {"source": str(digits)},
            "model": {"name": "vit_digits", "imgsz": (32, 32)},
            "training": {"epochs": 2, "batch": 16, "micro": 16, "precision": "float32", "device": "cpu"},
        },
    )
    named = recipe.task.model_copy(update={"name": f"{__name__}:ReadValue", "settings": {}})
    recipe = recipe.model_copy(update={"task": named})
    run = start(recipe, prepared, str(tmp_path / "run"))
    predictor = Predictor(run.folder)
    picture = sorted((digits / "3").iterdir())[0]
    found = predictor(picture)[0]
    assert isinstance(found.value, float)
    assert json.dumps(found.to_dict())
    assert explain(predictor, picture).heat.shape == (8, 8)
    scores = [event["closeness"] for event in run.history() if event["event"] == "score"]
    assert len(scores) == 2
    report = json.loads(run.report_path.read_text())
    assert 0 < report["test"]["closeness"] < 1
    assert "closeness" in report["verdict"]
