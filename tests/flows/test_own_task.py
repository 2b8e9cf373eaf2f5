"""A task defined outside the package trains, predicts, explains and is reported without a change anywhere."""

from __future__ import annotations

import csv
import html
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import ImageDraw
from torch import nn

from vitrail.core.errors import SettingError
from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth
from vitrail.explainers.explanation import explain
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import Head
from vitrail.runs.recipe import compose
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.result import (
    Column,
    Curve,
    Gallery,
    Gathered,
    Number,
    Overlays,
    Result,
    Scope,
    Shot,
    Table,
    TableSection,
)  # fmt: skip
from vitrail.training.draft import draft
from vitrail.training.fit import start
from vitrail.training.loop import Event
from vitrail.training.progress import Teller
from vitrail.training.resolve_recipe import Planned


@dataclass(frozen=True)
class Value:
    """A predicted number."""

    value: float

    def to_dict(self):
        return {"value": self.value, "parts": [self.value]}

    def __str__(self):
        return f"{self.value:.2f}"


class Errors:
    """Mean absolute error: the lower, the better."""

    main, unit, better = "error", "mm", "lower"

    def __init__(self):
        self.kept = Gathered()

    def update(self, rows, output, truths, at):
        values = output["value"].double().numpy()
        self.kept.add(rows, {"value": values, "truth": np.array(truths, dtype=float)})

    def merge(self, other):
        self.kept.merge(other.kept)

    def off(self):
        return np.abs(self.kept["value"] - self.kept["truth"])

    def scores(self):
        return {"error": float(self.off().mean()), "pictures": len(self.kept)}

    def calibrate(self):
        return {}

    def per_image(self):
        return {"error": self.off()}

    def resample(self, counts):
        return {"error": float(counts @ self.off() / counts.sum())}

    def result(self, scope=Scope()):
        off = self.off()
        error = Number(
            float(off.mean()), float(off.min()), float(off.max()), "mm", "lower", "error", "mean error"
        )
        shots = [
            Shot(row.id, f"{true:g}", f"{value:.2f}")
            for row, true, value in zip(self.kept.rows, self.kept["truth"], self.kept["value"], strict=True)
        ]
        table = Table(
            (Column("value"), Column("pictures", right=True), Column("error", right=True, spread=True)),
            (("all of them", len(shots), error),),
        )
        return Result(
            "error",
            {"error": error},
            f"off by {error.text()} on {len(shots)} {scope.called}.",
            (table,),
            (
                TableSection("By value", table),
                Curve("Errors", {"error": list(enumerate(np.sort(off).tolist()))}, "picture", "mm"),
                Gallery("Some answers", "The first of them.", tuple(shots[:2])),
                Overlays("As drawn", "With the answer.", tuple(shots[:2])),
            ),
            {"test": {"pictures": len(shots), "error": error.to_dict()}},
        )


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

    @classmethod
    def gather(cls, truth, rows):
        return Truth("class")  # numbers are no classes

    def read(self, row, root):
        return float(row.target)

    def head(self, spec):
        return Mean(spec)

    def loss(self, output, targets):
        return Losses({"squares": F.mse_loss(output["value"], torch.tensor(targets))})

    def evaluation(self):
        return Errors()

    def decode(self, output, at, ask):
        return [Value(value) for value in output["value"].tolist()]

    def score(self, output, prediction):
        return output["value"]

    def render(self, image, prediction):
        ImageDraw.Draw(image).text((0, 0), str(prediction))
        return image

    def fingerprint(self, output):
        return output["value"][:, None]

    def agree(self, one, other, tolerance=0.0):
        return (one["value"] - other["value"]).abs() <= 1e-3 + tolerance


@pytest.fixture(scope="module")
def own(digits, tmp_path_factory):
    """A run of two epochs."""
    recipe = compose(
        "digits_vit",
        {
            "data": {"source": str(digits)},
            "model": {"name": "vit_digits", "imgsz": (32, 32)},
            "training": {"epochs": 3, "batch": 16, "micro": 16, "precision": "float32", "device": "cpu"},
        },
    )
    named = recipe.task.model_copy(update={"name": f"{__name__}:ReadValue", "settings": {}})
    recipe = recipe.model_copy(update={"task": named})
    return start(
        recipe, prepare(digits, task=f"{__name__}:ReadValue"), str(tmp_path_factory.mktemp("own") / "run")
    )


def test_a_task_from_outside_trains_predicts_and_explains(own, digits):
    predictor = Predictor(own.folder)
    picture = sorted((digits / "3").iterdir())[0]
    found = predictor(picture)[0]
    assert isinstance(found.value, float)
    assert json.dumps(found.to_dict())
    assert explain(predictor, picture).heat.shape == (8, 8)
    report = json.loads(own.report_path.read_text())
    assert report["test"]["error"]["value"] > 0
    assert report["test"]["error"]["unit"] == "mm"
    assert "mm on" in report["verdict"]
    assert report["data"]["splits"]["train"] == {"": 56}


def test_the_weights_that_are_kept_are_those_of_the_smallest_error(own):
    scored = [event for event in own.history() if event["event"] == "score"]
    errors = [event["error"] for event in scored]
    assert len(errors) == 3
    assert [event["best"] for event in scored] == np.minimum.accumulate(errors).tolist()
    assert [event["better"] for event in scored] == [
        error <= min(errors[: i + 1]) for i, error in enumerate(errors)
    ]


def test_its_score_is_told_in_its_own_unit():
    lines = []
    values = {"epoch": 1.0, "main": "error", "error": 2.345, "best": 1.5, "better": False, "unit": "mm"}
    Teller(lines.append)(Event("score", 1, values))
    assert "validation error 2.35 mm  (best 1.5 mm)" in lines[0]


def words_of(page):
    return html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.S))


def test_its_reports_say_nothing_of_classes(own, vitrail, digits, tmp_path):
    page = (own.folder / "report.html").read_text()
    text = words_of(page)
    for words in ("mean error", "By value", "Errors", "Some answers", "where the network looked", "As drawn"):
        assert words in text
    card = (own.folder / "README.md").read_text()
    assert "| all of them | 12 |" in card
    assert "pipeline_tag" not in card
    done = vitrail("eval", own.folder)
    assert done.returncode == 0, done.stderr
    assert "all of them" in done.stdout
    assert re.search(r"error +[\d.]+ mm", done.stdout)
    new = vitrail("eval", own.folder, digits, "--html", tmp_path / "new.html")
    assert new.returncode == 0, new.stderr
    assert json.loads(vitrail("eval", own.folder, "--json").stdout)["test"]["pictures"] == 12
    for said in (
        text,
        card,
        done.stdout,
        new.stdout,
        words_of((tmp_path / "new.html").read_text()),
    ):
        found = re.search(r"\b(class|classes|labels?|labelled|right|sure|confused)\b", said)
        assert found is None, said[found.start() - 200 : found.end() + 200]


def test_its_answers_become_a_table(own, vitrail, digits, tmp_path):
    done = vitrail("predict", own.folder, digits / "3", "--csv", tmp_path / "answers.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert len(rows) == 20
    assert list(rows[0]) == ["path", "value", "error"]
    assert float(rows[0]["value"]) == pytest.approx(Predictor(own.folder)(digits / "3")[0].value, abs=1e-5)


def test_without_a_probe_there_is_no_draft(own, digits, tmp_path):
    with pytest.raises(SettingError, match="--tune full"):
        draft(
            Planned(own.recipe(), ()), prepare(digits, task=f"{__name__}:ReadValue"), str(tmp_path / "draft")
        )
