"""A task defined outside the package, whose answers are pixels, explains itself by the same code."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from own_tasks import ReadValue

from vitrail.core.errors import UnknownNameError
from vitrail.explainers.faithfulness import Baseline
from vitrail.explainers.methods import build_explainer
from vitrail.explainers.target import Subject
from vitrail.layers.heads import Head
from vitrail.models.factory import build
from vitrail.models.vit import ViTConfig
from vitrail.runs.network import build_network
from vitrail.tasks.base import Losses, within


@dataclass(frozen=True)
class Pixel:
    """The brightness of one patch."""

    row: int
    col: int

    def to_dict(self):
        return {"row": self.row, "col": self.col}

    def __str__(self):
        return f"pixel {self.row},{self.col}"


class Patches(Head):
    def forward(self, features, inputs):
        brightness = features.tokens.map()[:, :5].mean(1)  # (b, row, col); of all channels a norm has mean 0
        return {"brightness": brightness}


class Brightness(ReadValue):
    """One number a patch; an explanation asks about one of them."""

    name = "brightness"
    outputs = {"brightness": ("row", "col")}  # noqa: RUF012

    def head(self, spec):
        return Patches()

    def loss(self, output, targets):
        return Losses({"mean": output["brightness"].mean()})

    def decode(self, output, at, ask):
        return [Pixel(*divmod(int(one.argmax()), one.shape[1])) for one in output["brightness"]]

    def score(self, output, prediction):
        return output["brightness"][:, prediction.row, prediction.col]

    def render(self, image, prediction):
        return image

    def fingerprint(self, output):
        return within(output["brightness"])

    def agree(self, one, other, tolerance=0.0):
        apart = (self.fingerprint(one) - self.fingerprint(other)).abs().amax(1)
        return apart <= tolerance


@pytest.fixture
def subject():
    torch.manual_seed(0)
    task = Brightness(["brightness"])
    network = build_network(build(ViTConfig(image=24, patch=4, width=24, depth=2, heads=3)), task).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".out." in name:  # patches hardly look at each other: each answers for itself
                parameter.mul_(0.05)
    return Subject(network.requires_grad_(False), task, Pixel(4, 1), "paint")


@pytest.mark.parametrize("method", ["occlusion", "relevance"])
def test_the_patch_that_is_asked_about_is_pointed_at(subject, method):
    image = torch.randn(1, 3, 24, 24)
    settings = {"window": 1} if method == "occlusion" else {}
    found = build_explainer(method, settings)(subject, image)[0].abs()
    assert divmod(int(found.argmax()), 6) == (4, 1)


def test_it_is_tested_like_any_other(subject):
    deletion, insertion = Baseline(subject, torch.randn(3, 24, 24)).gains(torch.rand(6, 6).numpy())
    assert deletion.low < deletion.mean < deletion.high
    assert insertion.low < insertion.mean < insertion.high


def test_there_is_nothing_else_to_ask_about(subject):
    assert subject.task.choices(subject.prediction) == ("pixel 4,1",)
    assert subject.task.focus(subject.prediction, "pixel 4,1") is subject.prediction
    with pytest.raises(UnknownNameError, match="pixel 4,1"):
        subject.task.focus(subject.prediction, "pixel 4,2")
